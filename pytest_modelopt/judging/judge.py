"""The one way to a verdict: a pure function of a measured case and its limits.

It needs no model and no torch, so a saved record can be judged again, also against other limits. What limits about
answers need beside a comparison stands in `answers` and `slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median_low

from pytest_modelopt.judging.answer_limits import ANSWER_LIMITS, judge_answers
from pytest_modelopt.judging.deciding import Number, decide
from pytest_modelopt.judging.growth_limits import GROWTH_LIMITS, judge_growth, judge_loss, not_comparable
from pytest_modelopt.judging.timed_limits import judge_timed
from pytest_modelopt.judging.verdict_text import by_how_much, not_measured, shown, told_meter, verdict
from pytest_modelopt.judging.waivers import waive
from pytest_modelopt.limits.catalogue import LIMITS, format_value
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.verdicts import Limit, Verdict


def judge(case: Case, *, timed_limits: int) -> Case:
    """The case with one verdict for each of its limits, in their order.

    A case in error has no verdicts, and neither has one that is not at the base.

    `timed_limits` is the number of timed limits in the whole run, among which the risk of a false FAIL is shared.
    """
    if case.error is not None or (case.base is not None and case.base.status == "new"):
        return replace(case, verdicts=())
    known = [limit for limit in case.limits if limit.name in LIMITS]  # another one stays unjudged, which is never green

    def judged(limit: Limit) -> Verdict:
        return _judge_limit(case, limit, timed_limits)

    return replace(case, verdicts=tuple(waive(case, judged(limit), judged) for limit in known))


def _judge_limit(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    if LIMITS[limit.name].against == "base":
        return not_comparable(case, limit) or _judge_against_base(case, limit, timed_limits)
    if case.base is not None:
        return not_measured(case, limit, "it is no limit against a base, and this case compares head with its base")
    if LIMITS[limit.name].kind == "timed":
        return judge_timed(case, limit, timed_limits)
    if limit.name in MEMORY_LIMITS:
        return _judge_memory(case, limit)
    if limit.name in ANSWER_LIMITS:
        return judge_answers(case, limit)
    return _judge_exact(case, limit)


def _judge_against_base(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    if limit.name in GROWTH_LIMITS:
        return judge_growth(case, limit)
    if limit.name == "max_accuracy_loss":
        return judge_loss(case, limit)
    return judge_timed(case, limit, timed_limits)


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
        return _range(process.peaks_bytes, told_meter(case.variant)) if process else None
    variant = case.memory_peaks_bytes(case.variant)
    meter = told_meter(case.variant) if case.foreign_runtimes else ""
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
