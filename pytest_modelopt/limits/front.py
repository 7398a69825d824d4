"""What stands on the front of memory, speed and drop: two variants compared by all that is known of both.

Each figure is a range of shares of the original's, of which less is better. Ranges that overlap are a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.results.case import Case
from pytest_modelopt.statistics.proportions import drop_bounds

Criterion = Literal["memory", "speedup", "size", "drop"]
EXACT: tuple[Criterion, ...] = ("memory", "size", "drop")
"""Those whose figures repeat."""
CRITERIA: tuple[Criterion, ...] = (*EXACT, "speedup")


@dataclass(frozen=True)
class Range:
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def overlaps(self, other: Range) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Found:
    """A figure and the ends of its interval."""

    at: float
    low: float
    high: float


def figure(case: Case | None, criterion: Criterion) -> Range | None:
    """The figure of a case by which candidates are compared; None where it was not measured.

    Memory and size as shares of the original's by the same meter, the time of a call as a share of the original's, and
    the drop in the metric's unit.
    """
    if case is None:
        return None
    if criterion == "memory":
        before, after = case.memory_peaks_bytes(case.reference), case.memory_peaks_bytes(case.variant)
        if not before or not after or not min(before):
            return None
        return Range(min(after) / max(before), max(after) / min(before))
    if criterion == "size":
        then, now = (side.size_bytes if side is not None else None for side in (case.reference, case.variant))
        return Range(now / then, now / then) if then and now is not None else None
    if criterion == "drop":
        return None if case.drop is None else Range(case.drop, case.drop)
    if case.timing is None or not case.timing.pairs:
        return None
    low, high = interval_of(speedup_of(case.timing), 1)
    return Range(1 / high, 1 / low) if low > 0 else None


def dominates(one: Case, other: Case) -> bool:
    """Whether one is certainly no worse in all that is known of both, and better in something.

    What only one of them has, or neither, such as the time before anything is timed, is not compared.
    """
    return covers(one, other) and any(mine.high < its.low for mine, its in _known(one, other, CRITERIA))


def covers(one: Case, other: Case, criteria: Sequence[Criterion] = CRITERIA) -> bool:
    """Whether one is certainly no worse than another in all of the criteria that is known of both."""
    return all(mine.high <= its.low or mine == its for mine, its in _known(one, other, criteria))


def _known(one: Case, other: Case, criteria: Sequence[Criterion]) -> list[tuple[Range, Range]]:
    """The figures that both have, in pairs."""
    pairs = ((figure(one, each), figure(other, each)) for each in criteria)
    return [(mine, its) for mine, its in pairs if mine is not None and its is not None]


def drop_found(case: Case) -> Found | None:
    """The drop on the examples, with its one-sided 95% bounds in the population; alone where there are none."""
    if case.drop is None:
        return None
    low = high = case.drop
    if (seen := case.agreement) is not None:
        low, high = drop_bounds(seen.right_to_wrong, seen.wrong_to_right, seen.examples)
    elif case.interval is not None:
        low, high = case.interval.low, case.interval.high
    return Found(case.drop, min(low, case.drop), max(high, case.drop))


def speed_found(case: Case) -> Found | None:
    """How many times as fast, with the interval of a single timed limit; None where too few pairs give none."""
    if case.timing is None or not case.timing.pairs:
        return None
    speedup = speedup_of(case.timing)
    low, high = interval_of(speedup, 1)
    is_known = low > 0 and math.isfinite(high)
    return Found(speedup.figure, low, high) if is_known else None
