"""The one way to a verdict: a pure function of a measured case and its limits.

It needs no model and no torch, so a saved record can be judged again, also against other limits. What limits about
answers need beside a comparison stands in `answers` and `slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from statistics import median, median_low

from pytest_modelopt.budgets.answers import ANSWER_LIMITS, judge_answers
from pytest_modelopt.budgets.deciding import Number, decide
from pytest_modelopt.budgets.limits import LIMITS, format_value
from pytest_modelopt.budgets.words import by_how_much, not_measured, shown, verdict
from pytest_modelopt.record.model import Case, Measurement, Timing
from pytest_modelopt.record.verdicts import Limit, Verdict
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    LAUNCHES,
    Decision,
    Need,
    Samples,
    alpha_fail,
    decide_at_least,
    decide_at_most,
    lacking_at_least,
    lacking_at_most,
    latency_interval,
    speedup_interval,
)


def judge(case: Case, *, timed_limits: int) -> Case:
    """The case with one verdict for each of its limits, in their order. A case in error has no verdicts.

    `timed_limits` is the number of timed limits in the whole run, among which the risk of a false FAIL is shared.
    """
    if case.error is not None:
        return replace(case, verdicts=())
    known = [limit for limit in case.limits if limit.name in LIMITS]  # another one stays unjudged, which is never green
    return replace(case, verdicts=tuple(_judge_limit(case, limit, timed_limits) for limit in known))


def _judge_limit(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    if LIMITS[limit.name].kind == "timed":
        return _judge_timed(case, limit, timed_limits)
    if limit.name in MEMORY_LIMITS:
        return _judge_memory(case, limit)
    if limit.name in ANSWER_LIMITS:
        return judge_answers(case, limit)
    return _judge_exact(case, limit)


# --- exact limits ----------------------------------------------------------------------------------------------------


def _size(case: Case) -> float | None:
    return case.variant.size_bytes if case.variant else None


def _reduction(original: int | None, variant: int | None) -> Fraction | None:
    if original is None or variant is None or original == 0:
        return None
    return 1 - Fraction(variant, original)


def _size_reduction(case: Case) -> Fraction | None:
    if case.original is None or case.variant is None:
        return None
    return _reduction(case.original.size_bytes, case.variant.size_bytes)


def _coverage(case: Case) -> Fraction | None:
    coverage = case.coverage
    return Fraction(coverage.changed_bytes, coverage.weight_bytes) if coverage and coverage.weight_bytes else None


_FIGURES: dict[str, Callable[[Case], Number | None]] = {
    "max_size": _size,
    "min_size_reduction": _size_reduction,
    "min_coverage": _coverage,
}


def _judge_exact(case: Case, limit: Limit) -> Verdict:
    figure = _FIGURES[limit.name](case)
    if figure is None:
        return not_measured(case, limit)
    decision = decide(case, limit, figure, figure)
    text = f"{shown(case, limit, float(figure), kept=decision == 'pass')} measured"
    if decision == "fail":
        text += by_how_much(case, limit, float(figure))
    return verdict(case, limit, decision, figure, text)


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY_LIMITS = ("max_memory", "min_memory_reduction", "max_process_memory")
"""Limits whose figure may come from several processes: a limit inside their spread is neither kept nor broken."""


@dataclass(frozen=True)
class _Range:
    """All that the runs of a meter allow a figure to be; both ends are the figure itself where it is exact."""

    low: Number
    figure: Number
    high: Number
    meter: str
    """How it was measured, in words; empty for torch's allocator."""


def _judge_memory(case: Case, limit: Limit) -> Verdict:
    measured = _memory_range(case, limit)
    if measured is None:
        return not_measured(case, limit)
    decision = decide(case, limit, measured.low, measured.high)
    figure = float(measured.figure)
    text = f"{shown(case, limit, figure, kept=decision != 'fail')} measured{measured.meter}"
    if decision == "fail":
        text += by_how_much(case, limit, figure)
    elif decision == "inconclusive":
        low, high = (format_value(limit.name, float(end), digits=6) for end in (measured.low, measured.high))
        text += (
            f", and the limit lies within the measured spread, {low} to {high}; give a limit further from what is "
            "measured"
        )
    return verdict(case, limit, decision, figure, text)


def _memory_range(case: Case, limit: Limit) -> _Range | None:
    if limit.name == "max_process_memory":
        process = case.variant.process_memory if case.variant else None
        return _range(process.peaks_bytes, _told_meter(case.variant)) if process else None
    variant = case.memory_peaks_bytes(case.variant)
    meter = _told_meter(case.variant) if case.foreign_runtimes else ""
    if limit.name == "max_memory":
        return _range(variant, meter)
    original = case.memory_peaks_bytes(case.original)
    if not variant or not original or min(original) <= 0 or _meters_differ(case):
        return None
    return _Range(
        low=1 - Fraction(max(variant), min(original)),
        figure=1 - Fraction(median_low(variant), median_low(original)),
        high=1 - Fraction(min(variant), max(original)),
        meter=meter,
    )


def _range(peaks_bytes: Sequence[int], meter: str) -> _Range | None:
    if not peaks_bytes:
        return None
    return _Range(min(peaks_bytes), median_low(peaks_bytes), max(peaks_bytes), meter)


def _meters_differ(case: Case) -> bool:
    """Whether figures of two process meters would be compared, which read different things."""
    sides = (case.original, case.variant)
    meters = {side.process_memory.meter for side in sides if side is not None and side.process_memory}
    return bool(case.foreign_runtimes) and len(meters) > 1


def _told_meter(side: Measurement | None) -> str:
    process = side.process_memory if side is not None else None
    if process is None:
        return ""
    runs = len(process.peaks_bytes)
    return f" by {process.meter} in {runs} fresh process{'' if runs == 1 else 'es'}"


# --- timed limits ----------------------------------------------------------------------------------------------------


def lacking_timed(limit: Limit, speedups: Samples, latencies_s: Samples, *, timed_limits: int) -> Need:
    """What the pairs measured so far lack for a decision. The referee stops when no limit lacks anything any more."""
    risk = alpha_fail(timed_limits)
    if limit.name == "min_speedup":
        return lacking_at_least(speedups, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    return lacking_at_most(latencies_s, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)


def _judge_timed(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    timing = case.timing
    if timing is None or not timing.pairs:
        return not_measured(case, limit)
    speedups, latencies_s = speedup_samples(timing), Samples(timing.variant_latencies_s(), timing.launches())
    risk = alpha_fail(timed_limits)
    decision: Decision
    if limit.name == "min_speedup":
        samples = speedups
        decision = decide_at_least(samples, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)
        low, high = speedup_interval(samples, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    else:
        samples = latencies_s
        decision = decide_at_most(samples, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)
        low, high = latency_interval(samples, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    estimate = median(samples.values)
    told = shown(case, limit, estimate, kept=decision != "fail")
    ends = [format_value(limit.name, end, digits=3) if 0 < end < inf else "?" for end in (low, high)]
    measured = f"{told} [{ends[0]}, {ends[1]}] over {len(samples.values)} pairs"
    if decision == "fail":
        measured += by_how_much(case, limit, estimate)
    elif decision == "inconclusive":
        lacking = lacking_timed(limit, speedups, latencies_s, timed_limits=timed_limits)
        measured += f" in {timing.seconds:.3g} s, {_why_inconclusive(limit, samples, lacking, timing)}"
    return verdict(case, limit, decision, estimate, measured)


def _why_inconclusive(limit: Limit, samples: Samples, lacking: Need, timing: Timing) -> str:
    if timing.seconds < timing.time_limit_s and samples.sampled_launches < LAUNCHES:
        return (  # told again with another limit: the run itself would have gone on
            f"which is not enough for this limit: the record holds {samples.sampled_launches} of the {LAUNCHES} "
            "launches that it needs; run it again with this limit"
        )
    if lacking == "pairs":
        return (
            "and the limit lies inside that interval; give it more time (`time_limit`), a quieter machine, or a limit "
            "further from what is measured"
        )
    if samples.sampled_launches < LAUNCHES:
        return (
            f"and this limit needs {LAUNCHES} launches of the workers, of which the time was enough for "
            f"{samples.sampled_launches}; give it more time (`time_limit`)"
        )
    launches = [format_value(limit.name, median(values)) for values in samples.by_launch()]
    return (
        f"and the launches of the workers contradict each other ({', '.join(launches)}), so more pairs would not help: "
        "give it a quieter machine, or a limit further from what is measured"
    )


def speedup_samples(timing: Timing) -> Samples:
    """The paired ratios of a comparison, with their launches."""
    return Samples(timing.speedups(), timing.launches())
