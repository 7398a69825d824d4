"""Timed limits: the verdict of a sequence of paired values, and the interval that can never disagree with it.

Two kinds of error stand against a figure. What changes from pair to pair is bounded by the sign test. What stays the
same as long as a process lives (where its memory lies) is the same in all pairs of one *launch* of the two workers, so
no number of pairs shows it: it counts as unknown by `NEAR` until `LAUNCHES` launches were sampled, and then no launch
may contradict the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pytest_modelopt.statistics.sign_test import e_value, successes_needed

ALPHA_PASS = 0.05
"""Probability of passing a variant whose median is on the bad side of the limit."""
ALPHA_FAIL = 0.01
"""Probability, over all timed limits of one run together, of failing a variant that keeps its limit."""
LAUNCHES = 3
"""Launches that a limit near the estimate needs."""
NEAR = 1.1
"""A limit within this factor of the estimate is near."""
_ALPHA_LAUNCH = 0.05
"""Evidence at which the pairs of one launch contradict what all pairs together say."""

Decision = Literal["pass", "fail", "inconclusive"]
Need = Literal["nothing", "launches", "pairs"]
"""What a decision lacks: nothing; other launches of the workers, while the pairs alone would decide; or pairs."""
NEEDS: tuple[Need, ...] = ("nothing", "launches", "pairs")
"""From the least to the most."""


@dataclass(frozen=True)
class Samples:
    """One positive figure per pair (a ratio, a latency), and the launch of the workers in which it was measured."""

    values: Sequence[float]
    launches: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.launches):
            raise ValueError(f"{len(self.values)} values in {len(self.launches)} launches")

    @property
    def sampled_launches(self) -> int:
        """Launches with so many pairs that they could contradict the others: a launch of one pair tells nothing."""
        return sum(successes_needed(len(values), _ALPHA_LAUNCH) is not None for values in self.by_launch())

    def by_launch(self) -> list[list[float]]:
        """The values of each launch."""
        groups: dict[int, list[float]] = {}
        for value, launch in zip(self.values, self.launches, strict=True):
            groups.setdefault(launch, []).append(value)
        return list(groups.values())


@dataclass(frozen=True)
class Risks:
    """How often a sequence of pairs may wrongly put its median above, or below, where it is."""

    above: float
    below: float
    above_needs_launches: bool = False
    """Also where the limit is far: the values are not paired, so one launch in a bad moment would be evidence."""


def alpha_fail(timed_limits: int) -> float:
    """The share of ALPHA_FAIL that each of a run's timed limits may spend (Bonferroni)."""
    return ALPHA_FAIL / max(1, timed_limits)


def decide_at_least(samples: Samples, limit: float, *, alpha_pass: float, alpha_fail: float) -> Decision:
    """Is the median at least `limit`? Ties count for neither side; the order of the pairs does not matter."""
    side, _ = _side(samples, limit, Risks(above=alpha_pass, below=alpha_fail))
    return "inconclusive" if side is None else "pass" if side == "above" else "fail"


def decide_at_most(samples: Samples, limit: float, *, alpha_pass: float, alpha_fail: float) -> Decision:
    """Is the median at most `limit`? The values are not paired, so a fail takes `LAUNCHES` launches in any case."""
    side, _ = _side(samples, limit, Risks(alpha_fail, alpha_pass, above_needs_launches=True))
    return "inconclusive" if side is None else "pass" if side == "below" else "fail"


def lacking_at_least(samples: Samples, limit: float, *, alpha_pass: float, alpha_fail: float) -> Need:
    """What `decide_at_least` lacks for a decision."""
    return _side(samples, limit, Risks(above=alpha_pass, below=alpha_fail))[1]


def lacking_at_most(samples: Samples, limit: float, *, alpha_pass: float, alpha_fail: float) -> Need:
    """What `decide_at_most` lacks for a decision."""
    return _side(samples, limit, Risks(alpha_fail, alpha_pass, above_needs_launches=True))[1]


def speedup_interval(samples: Samples, *, alpha_pass: float, alpha_fail: float) -> tuple[float, float]:
    """All lower limits that `decide_at_least` leaves undecided, as (low, high).

    Every L < low passes and every L > high fails, so a printed interval and the verdict never disagree. With too few
    pairs for any decision on a side that end is 0.0 or inf.
    """
    return _undecided(samples, Risks(above=alpha_pass, below=alpha_fail))


def latency_interval(samples: Samples, *, alpha_pass: float, alpha_fail: float) -> tuple[float, float]:
    """All upper limits in seconds that `decide_at_most` leaves undecided, as (low, high): every L > high passes."""
    return _undecided(samples, Risks(alpha_fail, alpha_pass, above_needs_launches=True))


# --- both directions at once -----------------------------------------------------------------------------------------


def _side(samples: Samples, limit: float, risks: Risks) -> tuple[Literal["above", "below"] | None, Need]:
    """(the side of `limit` on which the median lies, as far as it is known; what is missing to know it)."""
    above, below = _signs(samples.values, limit)
    side: Literal["above", "below"]
    if e_value(above + below, above) >= 1 / risks.above:
        side = "above"
    elif e_value(above + below, below) >= 1 / risks.below:
        side = "below"
    else:
        return None, "pairs"
    if samples.sampled_launches < LAUNCHES:
        estimate = median(samples.values)
        is_near = estimate / NEAR <= limit <= estimate * NEAR
        if is_near or (side == "above" and risks.above_needs_launches):
            return None, "launches"
    for values in samples.by_launch():
        above, below = _signs(values, limit)  # of all pairs of the launch: a tie does not contradict
        if e_value(len(values), below if side == "above" else above) >= 1 / _ALPHA_LAUNCH:
            return None, "launches"
    return side, "nothing"


def _signs(values: Sequence[float], limit: float) -> tuple[int, int]:
    return sum(value > limit for value in values), sum(value < limit for value in values)


def _undecided(samples: Samples, risks: Risks) -> tuple[float, float]:
    """All limits of which `_side` does not know on which side the median lies: order statistics of the values."""
    lows, highs = zip(*_bounds(samples, risks), strict=True)
    return min(lows), max(highs)


def _bounds(samples: Samples, risks: Risks) -> Iterator[tuple[float, float]]:
    """What each rule of `_side` leaves undecided."""
    ordered = sorted(samples.values)
    for_above = successes_needed(len(ordered), risks.above)
    for_below = successes_needed(len(ordered), risks.below)
    yield (
        0.0 if for_above is None else ordered[len(ordered) - for_above],
        math.inf if for_below is None else ordered[for_below - 1],
    )
    if ordered and samples.sampled_launches < LAUNCHES:
        yield 0.0 if risks.above_needs_launches else median(ordered) / NEAR, median(ordered) * NEAR
    for values in samples.by_launch():
        needed = successes_needed(len(values), _ALPHA_LAUNCH)
        if needed is not None:
            values.sort()
            # This launch contradicts "above" for limits beyond the first figure, "below" for limits below the second.
            yield values[needed - 1], values[len(values) - needed]
