"""The model of timed figures: an estimate, its error at each level of variation, and the verdict that follows.

A comparison is a series of pairs of warm blocks, one of each program. Its figures are those of the machine left alone:
the latency of a program is the geometric mean of the fastest fifth of its blocks, and the speedup is the ratio of two
such latencies. What disturbs a machine slows programs down, each by another share, so the fast blocks repeat where
medians do not.

Pairs of one moment are no independent evidence, since a machine stays in a state for seconds. The unit of evidence is
a *segment* of a second. With K segments whose own estimates spread by `s` (standard deviation of the logarithm), the
estimate of the whole comparison has the variance

    whole run  +  max(scale^2 / K, launches' variance / launches, pairs' variance / pairs)
    +  (slope error * slowness)^2  +  (slope * original alone)^2  +  starvation^2

The first term is what stays the same for a whole comparison, so that nothing in it shows it. The guess is `scale^2 *
WHOLE_RUN^2`: it grows with the spread, since a pair of programs that react differently to a moment does so to an hour
(and at least MEMORY_BOUND^2 for models that are larger than the caches). Where the machine has made the same comparison
before, its earlier runs show it: the posterior mean of the variance between them, under a prior of PRIOR_RUNS runs that
spread by the guess, is taken where it is larger. It is never taken as less: runs within an hour may have met one state
only.
`scale^2` is the posterior mean of the
segments' variance under a scaled inverse chi-squared prior (PRIOR_*), and the bound is Student's t with its degrees of
freedom. `slowness` says how far the machine was from the best state that it is known to have: by how much the original
took longer than in the fastest of the earlier runs of these programs. The slope by which the figure follows it is known
where these runs met several states (`state_slope.py`): then the figure is that of the best state, and the runs'
variance is what is left beside the slope. Without earlier runs `slowness` is what a fixed piece of work (the canary)
took beside what it takes at best, beyond CANARY_TOLERANCE; then the slope is 0, and its error what the pairs show, at
most SENSITIVITY_*. That of the fastest earlier runs counts, too: they may have met slow states only. `starvation` is
for other processes that had the processor in the middle of the fast blocks: their time is not counted, but they leave
cold caches behind. Each error probability is halved, which covers looking again whenever the number of segments has
doubled (simulated in tests/statistics).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, variance
from typing import Literal, NamedTuple

from pytest_modelopt.statistics.samples import MIN_PAIRS, NOTHING, ORIGINAL_ALONE, Samples, fast_log
from pytest_modelopt.statistics.state_slope import Deviations, Slope, likely, slope_of

ALPHA_PASS = 0.04
"""Probability of passing a variant that lies on the bad side of the limit."""
ALPHA_FAIL = 0.01
"""Probability, over all timed limits of one run together, of failing a variant that keeps its limit."""
LOOKS = 0.5
"""The share of an error probability that each look may spend."""
LAUNCHES = 3
"""Launches of both workers among which an undecided comparison divides its time."""
PRIOR_RATIO, PRIOR_LATENCY = 0.05, 0.08
"""Standard deviation of a segment's logarithm, before anything is known of the comparison: paired, and of one side."""
PRIOR_FREEDOM = 6
"""How many segments the prior counts for."""
SENSITIVITY_RATIO, SENSITIVITY_LATENCY = 0.8, 1.2
"""Standard deviation of the slope by which the logarithm of a figure follows that of the canary, among programs."""
WHOLE_RUN = 0.5
"""What stays the same for a whole comparison, as a share of the spread of its segments: a guess."""
MEMORY_BOUND = 0.03
"""The least of that where a side holds more than the caches do: the memory's bandwidth belongs to the whole host, and
the canary does not see it. An MLP of 400 MiB read 5.3x or 6.0x with int8 weights, the same within each comparison."""
PRIOR_RUNS = 2
"""For how many earlier runs that guess counts beside them."""

Decision = Literal["pass", "fail", "inconclusive"]
_Figure = Callable[[Sequence[int]], float]
"""The logarithm of a figure, from the pairs with these indices."""


@dataclass(frozen=True)
class Estimate:
    """A figure, and what is known of its error. `figure` is positive; its logarithm is what is estimated."""

    figure: float
    scale: float
    """Standard deviation of one segment, as a share: measured, and where little was measured the prior's."""
    error: float
    """Standard error of the figure, as a share; infinite with fewer than MIN_PAIRS pairs."""
    freedom: int
    segments: int
    from_state: float
    """The part of `error` that comes from the state of the machine, which no time mends while it lasts."""
    between_runs: float
    """The part of `error` that stays the same for a whole comparison."""
    is_learned: bool = False
    """Whether earlier runs show that part, and not the spread of the segments."""
    unseen: float = 0.0
    """The part of `from_state` that nobody knows: a slow state, and by how much the figure follows it."""
    correction: float = 1.0
    """The factor of `figure` by which earlier runs show it at the machine's best state."""

    @property
    def explained(self) -> float:
        """The variance that the pairs show. What a state may change (`from_state`) is a bound, and no expectation."""
        return max(0.0, self.error**2 - self.between_runs**2 - self.from_state**2)

    def interval(self, below: float, above: float) -> tuple[float, float]:
        """(low, high): the truth lies below `low` with probability `below` at most, above `high` with `above`."""
        low, high = (student_quantile(1 - LOOKS * alpha, self.freedom) * self.error for alpha in (below, above))
        return self.figure * math.exp(-low), self.figure * math.exp(high)

    def distance(self, limit: float) -> float:
        """From the limit, as a logarithm; positive where the figure is larger."""
        return math.log(self.figure / limit)

    def segments_needed(self, limit: float, alpha: float) -> int | None:
        """About how many segments would show on which side of `limit` the figure lies; None where no number would."""
        threshold = student_quantile(1 - LOOKS * alpha, self.freedom)
        rest = (self.distance(limit) / threshold) ** 2 - self.from_state**2 - self.between_runs**2
        allowed = rest / self.scale**2
        return math.ceil(1 / allowed) if allowed > 1e-3 else None


def alpha_fail(timed_limits: int) -> float:
    """The share of ALPHA_FAIL that each of a run's timed limits may spend (Bonferroni)."""
    return ALPHA_FAIL / max(1, timed_limits)


def speedup(samples: Samples) -> Estimate:
    """How many times as fast the variant is. Needs at least one pair."""

    def figure(pairs: Sequence[int]) -> float:
        return fast_log([samples.originals_s[i] for i in pairs]) - fast_log([samples.variants_s[i] for i in pairs])

    return estimated(samples, figure, PRIOR_RATIO, SENSITIVITY_RATIO, earlier=samples.of_speedup, is_corrected=True)


def original_latency(samples: Samples) -> Estimate:
    """Seconds of one call of the original, as this run alone has it. Needs at least one pair."""
    return variant_latency(replace(samples, variants_s=samples.originals_s, earlier=None))


def variant_latency(samples: Samples) -> Estimate:
    """Seconds of one call of the variant. Needs at least one pair.

    It is not corrected to the machine's best state: whatever made all calls slower would then pass for a state.
    """

    def figure(pairs: Sequence[int]) -> float:
        return fast_log([samples.variants_s[i] for i in pairs])

    return estimated(samples, figure, PRIOR_LATENCY, SENSITIVITY_LATENCY, earlier=samples.of_latency)


def decide_at_least(estimate: Estimate, limit: float, *, alpha_fail: float) -> Decision:
    """Is the figure at least `limit`? Undecided where the limit lies inside the interval."""
    low, high = estimate.interval(ALPHA_PASS, alpha_fail)
    return "pass" if limit <= low else "fail" if limit > high else "inconclusive"


def decide_at_most(estimate: Estimate, limit: float, *, alpha_fail: float) -> Decision:
    """Is the figure at most `limit`?"""
    low, high = estimate.interval(alpha_fail, ALPHA_PASS)
    return "pass" if limit >= high else "fail" if limit < low else "inconclusive"


def student_quantile(probability: float, freedom: float) -> float:
    """Of Student's t for at least six degrees of freedom, within 0.3% up to a probability of 0.9999.

    The expansion of Cornish and Fisher: Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


# --- parts -----------------------------------------------------------------------------------------------------------


class _Spread(NamedTuple):
    """How a figure varies within a comparison."""

    scale_squared: float
    """Variance of a segment."""
    within: float
    """Variance of the whole by what its parts show."""
    freedom: int
    segments: int
    least: float
    """Standard deviation, the least, of what stays the same for the whole of it."""

    @property
    def guess(self) -> float:
        """Variance of what stays the same for the whole of it."""
        return max(self.scale_squared * WHOLE_RUN**2, self.least**2)


def _spread(samples: Samples, figure: _Figure, prior: float, between_pairs: float | None) -> _Spread:
    segments = [figure(segment) for segment in samples.segments()]
    launches = [figure(launch) for launch in samples.by_launch()]
    freedom = PRIOR_FREEDOM + len(segments) - 1
    measured = variance(segments) * (len(segments) - 1) if len(segments) > 1 else 0.0
    scale_squared = (PRIOR_FREEDOM * prior**2 + measured) / freedom
    between_launches = variance(launches) / len(launches) if len(launches) > 1 else 0.0
    if between_pairs is None:
        pairs = [figure([i]) for i in range(len(samples))]
        between_pairs = variance(pairs) / len(pairs) if len(pairs) > 1 else 0.0  # large where others starve the workers
    within = max(scale_squared / len(segments), between_launches, between_pairs)
    least = MEMORY_BOUND if samples.are_large else 0.0
    return _Spread(scale_squared, within, freedom, len(segments), least)


def _slope(
    samples: Samples, figure: _Figure, sensitivity: float, earlier: Deviations, rest_beside: Callable[[float], float]
) -> tuple[Slope, float, float]:
    """By how much the figure follows the machine's state, how far that was from the best one that is known, and what is
    left unknown of it."""
    behind = samples.behind
    by_canary = samples.slowness if behind is None else samples.slowness_before
    unseen = 0.0
    if by_canary:
        figures = [figure([i]) for i in range(len(samples))]
        unseen = by_canary * likely(samples.canaries_ns, figures, sensitivity)
    if behind is None:
        return Slope(0.0, 0.0, earlier.squares), 0.0, unseen
    slope, met = slope_of(earlier, sensitivity, rest_beside), min(behind, samples.met)
    return slope, met, math.hypot(unseen, met * slope.error, (behind - met) * sensitivity)


def estimated(
    samples: Samples,
    figure: Callable[[Sequence[int]], float],
    prior: float,
    sensitivity: float,
    *,
    earlier: Deviations = NOTHING,
    is_corrected: bool = False,
    between_pairs: float | None = None,
    starvation: float | None = None,
) -> Estimate:
    """The estimate of the logarithm that `figure` gives of pairs by their indices.

    `prior`: the standard deviation of a segment before anything is known; `sensitivity`: that of the slope by which the
    figure follows the canary. `earlier`: of this figure in earlier runs. `is_corrected`: whether it becomes that of the
    machine's best state; else its error covers that. `between_pairs`: the variance that comes of
    how many pairs there are, and `starvation`: the error by others in the middle of the blocks, where they are not
    those of a mean over the fastest blocks.
    """
    spread = _spread(samples, figure, prior, between_pairs)
    freedom_of_runs = samples.earlier.freedom if samples.earlier is not None else 0

    def between(squares: float) -> float:
        return (PRIOR_RUNS * spread.guess + squares) / (PRIOR_RUNS + freedom_of_runs)

    slope, slow, unseen = _slope(
        samples, figure, sensitivity, earlier, lambda squares: between(squares) + spread.within
    )
    seen, corrected = slope.value * slow, figure  # by how much the figure of the best state may be another one
    if is_corrected and samples.behind is not None:
        seen = slope.value * ORIGINAL_ALONE

        def corrected(pairs: Sequence[int]) -> float:
            return figure(pairs) - slope.value * min(samples.met, samples.behind_of(pairs))

        spread = _spread(samples, corrected, prior, between_pairs)
    from_state = math.hypot(unseen, seen, samples.starvation if starvation is None else starvation)
    learned = between(slope.squares)
    between_runs = max(spread.guess, learned)
    every = range(len(samples))
    return Estimate(
        figure=math.exp(corrected(every)),
        scale=math.sqrt(spread.scale_squared),
        error=math.sqrt(between_runs + spread.within + from_state**2) if len(samples) >= MIN_PAIRS else math.inf,
        freedom=spread.freedom,
        segments=spread.segments,
        from_state=from_state,
        unseen=unseen,
        between_runs=math.sqrt(between_runs),
        is_learned=learned > spread.guess,
        correction=math.exp(corrected(every) - figure(every)),
    )
