"""Timed limits: the figures that a comparison's pairs give, and their verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_modelopt.judging.growth_limits import least_speedup, slowdown_of, told_slowdown
from pytest_modelopt.judging.verdict_text import by_how_much, not_measured, shown, verdict
from pytest_modelopt.judging.waivers import ceiling_of
from pytest_modelopt.limits.catalogue import format_value
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

TOO_FEW = f"fewer than {MIN_PAIRS} pairs give no interval"


def speedup_of(timing: Timing) -> Estimate:
    """How many times as fast the variant is; `timing` has pairs."""
    return speedup(_samples(timing))


def latencies_s(timing: Timing) -> tuple[float, float]:
    """Seconds of one call of the original and of the variant; their ratio is the speedup."""
    variant = variant_latency(_samples(timing)).figure
    return variant * speedup_of(timing).figure, variant


def is_open(limits: Sequence[Limit], samples: Samples, timed_limits: int) -> bool:
    """Whether one of `limits`, or the ceiling of its waiver, is still undecided after these pairs."""
    ceilings = [ceiling for limit in limits if (ceiling := ceiling_of(limit)) is not None]
    return any(_decide(limit, samples, timed_limits)[1] == "inconclusive" for limit in (*limits, *ceilings))


def judge_timed(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    """The verdict on a limit of time."""
    timing = case.timing
    if timing is None or not timing.pairs:
        return not_measured(case, limit)
    estimate, decision = _decide(limit, _samples(timing), timed_limits)
    figure = slowdown_of(estimate.figure) if limit.name == "max_slowdown" else estimate.figure
    interval = interval_of(limit.name, estimate, timed_limits)
    measured = f"{_told(case, limit, figure, interval, kept=decision != 'fail')} over {len(timing.pairs)} pairs"
    if decision == "fail":
        measured += by_how_much(case, limit, figure)
    elif decision == "inconclusive":
        measured += f" in {timing.seconds:.3g} s, {_what_it_takes(limit, estimate, timing, timed_limits)}"
    return verdict(case, limit, decision, figure, measured)


def interval_of(name: str, estimate: Estimate, timed_limits: int) -> tuple[float, float]:
    """All limits of this name that the estimate leaves undecided: latencies for `max_latency`, else speedups."""
    risk = alpha_fail(timed_limits)
    return estimate.interval(risk, ALPHA_PASS) if name == "max_latency" else estimate.interval(ALPHA_PASS, risk)


def _samples(timing: Timing) -> Samples:
    return Samples.of(timing.pairs, timing.conditions.canary_at_best_ns)


def _decide(limit: Limit, samples: Samples, timed_limits: int) -> tuple[Estimate, Decision]:
    risk = alpha_fail(timed_limits)
    if limit.name == "max_latency":
        estimate = variant_latency(samples)
        return estimate, decide_at_most(estimate, limit.value, alpha_fail=risk)
    estimate = speedup(samples)
    return estimate, decide_at_least(estimate, _bound(limit), alpha_fail=risk)


def _bound(limit: Limit) -> float:
    """The limit as a bound of what is estimated."""
    return least_speedup(limit.value) if limit.name == "max_slowdown" else limit.value


def _told(case: Case, limit: Limit, figure: float, interval: tuple[float, float], *, kept: bool) -> str:
    """'1.42x [1.3x, 1.5x]'."""
    if limit.name == "max_slowdown":
        told = told_slowdown(case, limit, figure, interval, kept)
        return told if math.isfinite(interval[1]) else f"{told} ({TOO_FEW})"
    if not math.isfinite(interval[1]):
        return f"{shown(case, limit, figure, kept=kept)} ({TOO_FEW})"
    ends = [format_value(limit.name, end, digits=3) for end in interval]
    return f"{shown(case, limit, figure, kept=kept)} [{ends[0]}, {ends[1]}]"


def _what_it_takes(limit: Limit, estimate: Estimate, timing: Timing, timed_limits: int) -> str:
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
        return (
            "and the limit lies inside that interval, since the machine was far from its best state: a fixed piece of "
            f"work took {format_percentage(_slower(timing), digits=2)} longer than at best, beside a busy neighbour on "
            "the host or at a lower frequency; run it again when the machine is calm"
        )
    bound, risk = _bound(limit), alpha_fail(timed_limits)
    is_kept = (estimate.figure >= bound) == (limit.name != "max_latency")
    segments = estimate.segments_needed(bound, ALPHA_PASS if is_kept else risk)
    spread = f"estimates of one second spread by {100 * estimate.scale:.2g}%"
    if segments is None and estimate.segments < PRIOR_FREEDOM:
        return f"and the limit lies inside that interval: {spread}; give it more time (`time_limit`)"
    if segments is None:
        return (
            f"and the limit lies inside that interval: {spread}, so no time would decide a limit that is so near; give "
            "a limit further from what is measured, or a quieter machine"
        )
    seconds = max(timing.seconds, segments * SEGMENT_S)
    return (
        f"and the limit lies inside that interval: {spread}, so about {format_time(_rounded(seconds))} of timing would "
        "decide it (`time_limit`); or give a limit further from what is measured"
    )


def _slower(timing: Timing) -> float:
    return math.expm1(_samples(timing).slowness + CANARY_TOLERANCE)


def _rounded(seconds: float) -> float:
    unit = 10.0 ** max(0, math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit
