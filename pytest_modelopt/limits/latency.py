"""Timed limits: the figures that a comparison's pairs give, and their verdicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pytest_modelopt.limits.kind import LimitKind
from pytest_modelopt.limits.verdict_text import base_name
from pytest_modelopt.results.figures import format_percentage, format_time
from pytest_modelopt.results.record import Case, Timing
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    CANARY_TOLERANCE,
    MIN_PAIRS,
    PRIOR_FREEDOM,
    SEGMENT_S,
    Decision,
    Estimate,
    Samples,
    alpha_fail,
    decide_at_least,
    decide_at_most,
    speedup,
    variant_latency,
)

_TOO_FEW = f"fewer than {MIN_PAIRS} pairs give no interval"


def speedup_of(timing: Timing) -> Estimate:
    """How many times as fast the variant is; `timing` has pairs."""
    return speedup(_samples(timing))


def latencies_s(timing: Timing) -> tuple[float, float]:
    """Seconds of one call of the original and of the variant; their ratio is the speedup."""
    variant = variant_latency(_samples(timing)).figure
    return variant * speedup_of(timing).figure, variant


def interval_of(speedup: Estimate, timed_limits: int) -> tuple[float, float]:
    """All limits that the estimate leaves undecided: speedups."""
    return speedup.interval(ALPHA_PASS, alpha_fail(timed_limits))


@dataclass(frozen=True)
class TimedKind(LimitKind):
    is_timed: ClassVar[bool] = True

    @abstractmethod
    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        """What is estimated, and whether that keeps the limit."""

    def judge(self, case: Case, limit: Limit, timed_limits: int) -> Verdict:
        timing = case.timing
        if timing is None or not timing.pairs:
            return self.not_measured(case, limit)
        estimate, decision = self.decision_of(limit, _samples(timing), timed_limits)
        figure = self.figure_of(estimate)
        interval = self.interval_of(estimate, timed_limits)
        told = self.told(case, limit, figure, interval, kept=decision != "fail")
        text = f"{told} over {len(timing.pairs)} pairs"
        if decision == "fail":
            text += self.by_how_much(case, limit, figure)
        elif decision == "inconclusive":
            text += f" in {timing.seconds:.3g} s, {self._what_it_takes(limit, estimate, timing, timed_limits)}"
        return self.verdict(case, limit, decision, figure, text)

    def is_open(self, limit: Limit, samples: Samples, timed_limits: int) -> bool:
        """Whether the limit is still undecided after these pairs."""
        return self.decision_of(limit, samples, timed_limits)[1] == "inconclusive"

    def figure_of(self, estimate: Estimate) -> float:
        """In the limit's unit."""
        return estimate.figure

    def bound_of(self, limit: Limit) -> float:
        """The limit as a bound of what is estimated."""
        return limit.value

    def interval_of(self, estimate: Estimate, timed_limits: int) -> tuple[float, float]:
        """All limits of this kind that the estimate leaves undecided, as bounds of what is estimated."""
        return interval_of(estimate, timed_limits)

    def told(self, case: Case, limit: Limit, figure: float, interval: tuple[float, float], *, kept: bool) -> str:
        """'1.42x [1.3x, 1.5x]'."""
        if not math.isfinite(interval[1]):
            return f"{self.shown(case, limit, figure, kept=kept)} ({_TOO_FEW})"
        ends = [self.format(end) for end in interval]
        return f"{self.shown(case, limit, figure, kept=kept)} [{ends[0]}, {ends[1]}]"

    def _what_it_takes(self, limit: Limit, estimate: Estimate, timing: Timing, timed_limits: int) -> str:
        """Why the limit is not decided, and what would decide it."""
        if not math.isfinite(estimate.error):
            return "and that is too little to decide anything; give it more time (`time_limit`)"
        samples = _samples(timing)
        if samples.starvation > 0.5 * estimate.error:
            return (
                "and that says little, since other processes had the processor for "
                f"{format_percentage(timing.delayed, digits=2)} of the timed time: run it again on a less busy machine"
            )
        if estimate.from_state > 0.5 * estimate.error:
            slower = format_percentage(math.expm1(samples.slowness + CANARY_TOLERANCE), digits=2)
            return (
                "and the limit lies inside that interval, since the machine was far from its best state: a fixed piece "
                f"of work took {slower} longer than at best, beside a busy neighbour on the host or at a lower "
                "frequency; run it again when the machine is calm"
            )
        bound = self.bound_of(limit)
        is_kept = (estimate.figure >= bound) == (self.unit != "time")
        segments = estimate.segments_needed(bound, ALPHA_PASS if is_kept else alpha_fail(timed_limits))
        spread = f"estimates of one second spread by {100 * estimate.scale:.2g}%"
        if segments is None and estimate.segments < PRIOR_FREEDOM:
            return f"and the limit lies inside that interval: {spread}; give it more time (`time_limit`)"
        if segments is None:
            return (
                f"and the limit lies inside that interval: {spread}, so no time would decide a limit that is so near; "
                "give a limit further from what is measured, or a quieter machine"
            )
        seconds = max(timing.seconds, segments * SEGMENT_S)
        return (
            f"and the limit lies inside that interval: {spread}, so about {format_time(_rounded(seconds))} of timing "
            "would decide it (`time_limit`); or give a limit further from what is measured"
        )


@dataclass(frozen=True)
class MinSpeedup(TimedKind):
    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        estimate = speedup(samples)
        return estimate, decide_at_least(estimate, self.bound_of(limit), alpha_fail=alpha_fail(timed_limits))

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end / (1 + headroom)


@dataclass(frozen=True)
class MaxLatency(TimedKind):
    is_absolute: ClassVar[bool] = True

    def decision_of(self, limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
        estimate = variant_latency(samples)
        return estimate, decide_at_most(estimate, limit.value, alpha_fail=alpha_fail(timed_limits))

    def interval_of(self, estimate: Estimate, timed_limits: int) -> tuple[float, float]:
        return estimate.interval(alpha_fail(timed_limits), ALPHA_PASS)

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


@dataclass(frozen=True)
class MaxSlowdown(MinSpeedup):
    """Decided on the ratio base / head of times: with 25% it may take 1.25 times as long."""

    def bound_of(self, limit: Limit) -> float:
        return 1 / (1 + limit.value)

    def figure_of(self, estimate: Estimate) -> float:
        return _slowdown(estimate.figure)

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return (1 + end) * (1 + headroom) - 1

    def told(self, case: Case, limit: Limit, figure: float, interval: tuple[float, float], *, kept: bool) -> str:
        """'12% slower [8%, 16%] than 1a2b3c4d5e6f': shares of the base's time, in the direction of the figure."""
        amount = f"{self.shown(case, limit, abs(figure), kept=kept)} {'faster' if figure < 0 else 'slower'}"
        if not math.isfinite(interval[1]):
            return f"{amount} than {base_name(case)} ({_TOO_FEW})"
        low, high = (_slowdown(end) for end in reversed(interval))
        one_way = low * high >= 0
        ends = [_told_end(end, signed=not one_way) for end in ((high, low) if figure < 0 and one_way else (low, high))]
        return f"{amount} [{', '.join(ends)}] than {base_name(case)}"


def _samples(timing: Timing) -> Samples:
    return Samples.of(timing.pairs, timing.conditions.canary_at_best_ns)


def _slowdown(speedup: float) -> float:
    """The share by which head takes longer; negative where it takes less."""
    return math.inf if speedup <= 0 else 1 / speedup - 1


def _told_end(slowdown: float, *, signed: bool) -> str:
    direction = f" {'faster' if slowdown < 0 else 'slower'}" if signed else ""
    return f"{format_percentage(abs(slowdown))}{direction}"


def _rounded(seconds: float) -> float:
    unit = 10.0 ** max(0, math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit


LIMITS = (
    MinSpeedup("min_speedup", "min", "factor", "timing", "How many times as fast as the original the variant must be."),
    MaxLatency(
        "max_latency",
        "max",
        "time",
        "timing",
        "The longest that one call of the variant may take on the machine that runs the tests.",
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
