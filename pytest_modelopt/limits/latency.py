"""Timed limits: the figures that a comparison's pairs give, and their verdicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from pytest_modelopt.limits.kind import LimitKind
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.timed_pairs import TimedCall, Timing
from pytest_modelopt.results.verdicts import Limit, Parameter, Reason, Verdict
from pytest_modelopt.statistics.samples import CANARY_TOLERANCE, ORIGINAL_TOLERANCE, SEGMENT_S, Samples
from pytest_modelopt.statistics.starts import start_time
from pytest_modelopt.statistics.tails import tail_latency
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    PRIOR_FREEDOM,
    Decision,
    Estimate,
    alpha_fail,
    decide_at_least,
    decide_at_most,
    speedup,
    variant_latency,
)


@dataclass(frozen=True, eq=False)
class _ByIdentity:
    """A timing as a key: what it holds never changes, and to compare or hash thousands of pairs takes long."""

    timing: Timing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.timing is other.timing

    def __hash__(self) -> int:
        return id(self.timing)


@lru_cache(maxsize=256)
def _estimates(key: _ByIdentity) -> tuple[Estimate, Estimate]:
    """Speedup and latency of the variant: every table, sentence and report asks for them again."""
    samples = _samples(key.timing)
    return speedup(samples), variant_latency(samples)


def speedup_of(timing: Timing) -> Estimate:
    """How many times as fast the variant is; `timing` has pairs."""
    return _estimates(_ByIdentity(timing))[0]


def latencies_s(timing: Timing) -> tuple[float, float]:
    """Seconds of one call of the original and of the variant; their ratio is the speedup."""
    speedup, variant = _estimates(_ByIdentity(timing))
    return variant.figure * speedup.figure, variant.figure


def p95_latency_of(timing: Timing) -> Estimate:
    """Seconds within which 95% of the variant's single calls are done; `timing` has these."""
    return tail_latency(_samples(timing))


def load_time_of(loading: Timing) -> Estimate:
    """Seconds of a fresh process from the start of loading the variant to its first answer; `loading` has pairs."""
    return start_time(_samples(loading))


def interval_of(speedup: Estimate, timed_limits: int) -> tuple[float, float]:
    """All limits that the estimate leaves undecided: speedups."""
    return speedup.interval(ALPHA_PASS, alpha_fail(timed_limits))


@dataclass(frozen=True)
class TimedKind(LimitKind):
    is_timed: ClassVar[bool] = True

    bounds_estimate_from_above: ClassVar[bool] = False
    """Whether what is estimated must be at most the bound: a time, and not a ratio of times."""

    call: TimedCall = "whole"
    """Whose pairs decide it."""

    @property
    def is_about_generation(self) -> bool:
        return self.call != "whole"

    def timing_of(self, case: MeasuredCase) -> Timing | None:
        """The pairs that decide it."""
        return case.timing_of(self.call)

    def parameters_of(self, timing: Timing) -> dict[str, Parameter]:
        """What else the sentence names."""
        return {}

    def seconds_of_segment(self, timing: Timing, estimate: Estimate) -> float:
        """How long one unit of evidence takes."""
        return SEGMENT_S

    @abstractmethod
    def estimate_of(self, samples: Samples) -> Estimate:
        """The figure that is estimated, and its error."""

    @abstractmethod
    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        """What is estimated, and whether that keeps the limit."""

    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        timing = self.timing_of(case)
        if timing is None or not timing.pairs:
            return self.not_measured(limit)
        estimate, decision = self.decision_of(limit, _samples(timing), timed_limits)
        parameters: dict[str, Parameter] = {"pairs": len(timing.pairs), **self.parameters_of(timing)}
        if decision == "inconclusive":
            parameters |= {"seconds": timing.seconds, **self._what_it_takes(limit, estimate, timing, timed_limits)}
        low, high = self.interval_of(estimate, timed_limits)
        is_known = low > 0 and math.isfinite(high)  # too few pairs give no interval
        ends = sorted((self.figure_of(low), self.figure_of(high))) if is_known else (None, None)
        return Verdict(limit, decision, self.figure_of(estimate.figure), Reason("timed", parameters), *ends)

    def is_open(self, limit: Limit, samples: Samples, timed_limits: int, finalists: int = 1) -> bool:
        """Whether the limit is still undecided after these pairs of blocks; of several finalists, too, where it is kept
        at the error of one, and not at its share."""
        estimate, decision = self.decision_of(limit, samples, timed_limits)
        return decision == "inconclusive" or (decision == "pass" and not self.is_kept_by(limit, estimate, finalists))

    def passes_among(self, case: MeasuredCase, limit: Limit, finalists: int) -> bool:
        timing = self.timing_of(case)
        if timing is None or not timing.pairs:
            return False
        return self.is_kept_by(limit, self.estimate_of(_samples(timing)), finalists)

    def is_kept_by(self, limit: Limit, estimate: Estimate, finalists: int) -> bool:
        """Whether the limit is kept at the share of ALPHA_PASS that one of so many finalists has (Bonferroni)."""
        low, high = estimate.interval(ALPHA_PASS / finalists, ALPHA_PASS / finalists)
        return high <= self.bound_of(limit) if self.bounds_estimate_from_above else low >= self.bound_of(limit)

    def figure_of(self, estimated: float) -> float:
        """What is estimated, in the limit's unit."""
        return estimated

    def bound_of(self, limit: Limit) -> float:
        """The limit as a bound of what is estimated."""
        return limit.value

    def interval_of(self, estimate: Estimate, timed_limits: int) -> tuple[float, float]:
        """All limits of this kind that the estimate leaves undecided, as bounds of what is estimated."""
        return interval_of(estimate, timed_limits)

    def _what_it_takes(
        self, limit: Limit, estimate: Estimate, timing: Timing, timed_limits: int
    ) -> dict[str, Parameter]:
        """What keeps the limit from being decided: `cause`, and the figures of its sentence."""
        if not math.isfinite(estimate.error):
            return {"cause": "too-few-pairs"}
        samples = _samples(timing)
        if samples.starvation > 0.5 * estimate.error:
            return {"cause": "starved", "delayed": timing.delayed}
        if estimate.unseen > 0.5 * estimate.error:
            if samples.behind:
                slower = math.expm1(samples.behind + ORIGINAL_TOLERANCE)
                return {"cause": "slower-than-before", "slower": slower}
            slowness = max(samples.slowness, samples.slowness_before)
            return {"cause": "state", "slower": math.expm1(slowness + CANARY_TOLERANCE)}
        bound = self.bound_of(limit)
        is_kept = (estimate.figure >= bound) == (self.unit != "time")
        segments = estimate.segments_needed(bound, ALPHA_PASS if is_kept else alpha_fail(timed_limits))
        found: dict[str, Parameter] = {"cause": "spread", "spread": estimate.scale, "needed_s": None}
        if segments is None and estimate.is_learned and timing.earlier is not None:
            return {"cause": "between-runs", "differ": estimate.between_runs, "runs": timing.earlier.runs}
        if segments is not None:
            found["needed_s"] = max(timing.seconds, segments * self.seconds_of_segment(timing, estimate))
        elif estimate.segments < PRIOR_FREEDOM:
            found["cause"] = "few-segments"
        return found


@dataclass(frozen=True)
class MinSpeedup(TimedKind):
    def estimate_of(self, samples: Samples) -> Estimate:
        return speedup(samples)

    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        estimate = self.estimate_of(samples)
        return estimate, decide_at_least(estimate, self.bound_of(limit), alpha_fail=alpha_fail(timed_limits))

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end / (1 + headroom)


@dataclass(frozen=True)
class MaxLatency(TimedKind):
    is_absolute: ClassVar[bool] = True
    bounds_estimate_from_above: ClassVar[bool] = True

    def estimate_of(self, samples: Samples) -> Estimate:
        return variant_latency(samples)

    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        estimate = self.estimate_of(samples)
        return estimate, decide_at_most(estimate, limit.value, alpha_fail=alpha_fail(timed_limits))

    def interval_of(self, estimate: Estimate, timed_limits: int) -> tuple[float, float]:
        return estimate.interval(alpha_fail(timed_limits), ALPHA_PASS)

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


@dataclass(frozen=True)
class MaxP95Latency(MaxLatency):
    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        if case.timing is not None and case.timing.pairs and not case.timing.variant_calls_ns:
            return self.not_measured(limit, "no-single-calls")
        return super().judge(case, limit, timed_limits)

    def parameters_of(self, timing: Timing) -> dict[str, Parameter]:
        return {"calls": sum(map(len, timing.variant_calls_ns))}

    def estimate_of(self, samples: Samples) -> Estimate:
        return tail_latency(samples)


@dataclass(frozen=True)
class MaxSlowdown(MinSpeedup):
    """Decided on the ratio base / head of times: with 25% it may take 1.25 times as long."""

    def bound_of(self, limit: Limit) -> float:
        return 1 / (1 + limit.value)

    def figure_of(self, estimated: float) -> float:
        return slowdown(estimated)

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return (1 + end) * (1 + headroom) - 1


def _samples(timing: Timing) -> Samples:
    of = timing.conditions
    return Samples.of(
        timing.pairs, of.canary_at_best_ns, timing.variant_calls_ns, timing.earlier, are_large=of.are_large
    )


def slowdown(speedup: float) -> float:
    """The share by which head takes longer; negative where it takes less."""
    return math.inf if speedup <= 0 else 1 / speedup - 1


LIMITS = (
    MinSpeedup("min_speedup", "min", "factor", "timing", "How many times as fast as the original the variant must be."),
    MaxLatency(
        "max_latency",
        "max",
        "time",
        "timing",
        "The longest that one call of the variant may take on the machine that runs the tests.",
    ),
    MaxP95Latency(
        "max_p95_latency",
        "max",
        "time",
        "timing",
        "The time within which 95% of the variant's single calls must be done on the machine that runs the tests.",
    ),
)
AGAINST_BASE = (
    MaxSlowdown(
        "max_slowdown",
        "max",
        "percentage",
        "timing",
        "The share by which one call may take longer than at the base, both measured in turns.",
        "base",
    ),
)
