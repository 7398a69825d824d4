"""The one place that decides a verdict: a pure function of a measured case and its limits.

It needs no model and no torch, so a saved record can be judged again, also against other limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from statistics import median, median_low

from pytest_modelopt.budgets.limits import FIGURES, LIMITS, format_value, metric_in_unit_interval
from pytest_modelopt.budgets.useless import why_useless
from pytest_modelopt.figures import format_number, format_percentage, format_points
from pytest_modelopt.record.model import Case, Limit, Measurement, Timing, Verdict
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
    return replace(case, verdicts=tuple(_judge_limit(case, limit, timed_limits) for limit in case.limits))


def _judge_limit(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    if LIMITS[limit.name].kind == "timed":
        return _judge_timed(case, limit, timed_limits)
    if limit.name in MEMORY_LIMITS:
        return _judge_memory(case, limit)
    return _judge_exact(case, limit)


# --- exact limits ----------------------------------------------------------------------------------------------------


# Shares of integers are exact fractions, so that a case that lies exactly at its limit is never decided by rounding.


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


def _drop(case: Case) -> float | Fraction | None:
    """Counted exactly where predictions were compared one by one, else the difference of the two scores."""
    if case.agreement is not None and case.metric == "accuracy":
        changed = case.agreement
        return Fraction(changed.right_to_wrong - changed.wrong_to_right, changed.examples)
    return case.drop


def _score(case: Case) -> float | None:
    return case.variant.score if case.variant else None


def _flips(case: Case) -> Fraction | None:
    return Fraction(case.agreement.flips, case.agreement.examples) if case.agreement else None


def _coverage(case: Case) -> Fraction | None:
    coverage = case.coverage
    return Fraction(coverage.changed_bytes, coverage.weight_bytes) if coverage and coverage.weight_bytes else None


_FIGURES: dict[str, Callable[[Case], float | Fraction | None]] = {
    "max_size": _size,
    "min_size_reduction": _size_reduction,
    "max_accuracy_drop": _drop,
    "min_accuracy": _score,
    "max_flips": _flips,
    "min_coverage": _coverage,
}


def _judge_exact(case: Case, limit: Limit) -> Verdict:
    figure = _FIGURES[limit.name](case)
    if figure is None:
        return _not_measured(case, limit)
    useless = why_useless(case, limit)
    if useless:
        return Verdict(limit, "not measured", None, _sentence(case, limit, f"{_COUNTS_AS_BROKEN} ({useless})"))
    # The author wrote a decimal number: 0.6 means 6/10, not the binary float nearest to it.
    bound = Fraction(repr(limit.value)) if isinstance(figure, Fraction) else limit.value
    kept = figure <= bound if _bounds_from_above(case, limit) else figure >= bound
    shown = _shown(case, limit, float(figure), kept)
    if kept:
        return Verdict(limit, "pass", float(figure), _sentence(case, limit, f"holds: {shown} measured"))
    text = f"is broken: {shown} measured{_by_how_much(case, limit, float(figure))}"
    return Verdict(limit, "fail", float(figure), _sentence(case, limit, text))


def _bounds_from_above(case: Case, limit: Limit) -> bool:
    """Whether more is worse. The floor of a score is a ceiling where the metric is better when it is lower."""
    if limit.name == "min_accuracy" and not case.higher_is_better:
        return True
    return LIMITS[limit.name].direction == "max"


def _shown(case: Case, limit: Limit, figure: float, kept: bool) -> str:
    """The figure in words, with as many digits as it takes that a broken limit does not look like a kept one."""
    unit_interval = metric_in_unit_interval(case.metric)
    shown = ""
    for digits in range(3, 13):
        shown = format_value(limit.name, figure, unit_interval=unit_interval, digits=digits)
        if kept or shown != format_value(limit.name, limit.value, unit_interval=unit_interval, digits=digits):
            break
    return shown


def _by_how_much(case: Case, limit: Limit, figure: float) -> str:
    distance = abs(figure - limit.value)
    unit = LIMITS[limit.name].unit
    if unit in ("bytes", "time", "factor") and limit.value:
        side = "more" if figure > limit.value else "less"
        return f", {format_percentage(distance / limit.value)} {side} than the limit"
    if unit == "percentage":
        side = "above" if figure > limit.value else "below"
        return f", {format_number(100 * distance)} percentage points {side} the limit"
    if metric_in_unit_interval(case.metric):
        return f", {format_points(distance)} beyond the limit"
    return f", {format_number(distance)} beyond the limit"


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY_LIMITS = ("max_memory", "min_memory_reduction", "max_process_memory")
"""Limits whose figure may come from several processes: a limit inside their spread is neither kept nor broken."""


@dataclass(frozen=True)
class _Range:
    """All that the runs of a meter allow a figure to be; both ends are the figure itself where it is exact."""

    low: float | Fraction
    figure: float | Fraction
    high: float | Fraction
    meter: str
    """How it was measured, in words; empty for torch's allocator."""


def _judge_memory(case: Case, limit: Limit) -> Verdict:
    measured = _memory_range(case, limit)
    if measured is None:
        return _not_measured(case, limit)
    bound = Fraction(repr(limit.value))
    is_maximum = LIMITS[limit.name].direction == "max"
    kept = measured.high <= bound if is_maximum else measured.low >= bound
    broken = measured.low > bound if is_maximum else measured.high < bound
    figure = float(measured.figure)
    shown = f"{_shown(case, limit, figure, kept=not broken)} measured{measured.meter}"
    if kept:
        return Verdict(limit, "pass", figure, _sentence(case, limit, f"holds: {shown}"))
    if broken:
        text = f"is broken: {shown}{_by_how_much(case, limit, figure)}"
        return Verdict(limit, "fail", figure, _sentence(case, limit, text))
    low, high = (format_value(limit.name, float(end), digits=6) for end in (measured.low, measured.high))
    text = (
        f"is inconclusive: {shown}, and the limit lies within the measured spread, {low} to {high}; "
        "give a limit further from what is measured"
    )
    return Verdict(limit, "inconclusive", figure, _sentence(case, limit, text))


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
        return _not_measured(case, limit)
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
    shown = _shown(case, limit, estimate, kept=decision != "fail")
    ends = [format_value(limit.name, end, digits=3) if 0 < end < inf else "?" for end in (low, high)]
    measured = f"{shown} [{ends[0]}, {ends[1]}] over {len(samples.values)} pairs"
    if decision == "pass":
        text = f"holds: {measured}"
    elif decision == "fail":
        text = f"is broken: {measured}{_by_how_much(case, limit, estimate)}"
    else:
        lacking = lacking_timed(limit, speedups, latencies_s, timed_limits=timed_limits)
        why = _why_inconclusive(limit, samples, lacking, timing)
        text = f"is inconclusive: {measured} in {timing.seconds:.3g} s, {why}"
    return Verdict(limit, decision, estimate, _sentence(case, limit, text))


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


# --- words -----------------------------------------------------------------------------------------------------------


_COUNTS_AS_BROKEN = "was not measured, which counts as broken"


def _not_measured(case: Case, limit: Limit) -> Verdict:
    needed = FIGURES[limit.name]
    if needed == "memory" and case.foreign_runtimes:
        needed = "process_memory"
    reasons = [
        f"{side.recipe or 'original'}: {side.unmeasured[needed]}"
        for side in (case.original, case.variant)
        if side is not None and needed in side.unmeasured
    ]
    why = "; ".join(reasons) or f"the run produced no {needed} figure"
    text = f"{_COUNTS_AS_BROKEN} ({why})"
    return Verdict(limit, "not measured", None, _sentence(case, limit, text))


def _sentence(case: Case, limit: Limit, text: str) -> str:
    return f"{case.name}: {limit.name} {limit.text} {text}. ({limit.file}:{limit.line})"
