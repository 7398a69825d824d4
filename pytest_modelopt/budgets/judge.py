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
from pytest_modelopt.budgets.regression import (
    GROWTH_LIMITS,
    judge_growth,
    judge_loss,
    least_speedup,
    not_comparable,
    slowdown_of,
    told_slowdown,
)
from pytest_modelopt.budgets.waivers import ceiling_of, waive
from pytest_modelopt.budgets.words import by_how_much, not_measured, shown, told_meter, verdict
from pytest_modelopt.record.model import Case, Timing
from pytest_modelopt.record.verdicts import Limit, Verdict
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    LAUNCHES,
    NEEDS,
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
        return _judge_timed(case, limit, timed_limits)
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
    return _judge_timed(case, limit, timed_limits)


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


# --- timed limits ----------------------------------------------------------------------------------------------------


def lacking_timed(limit: Limit, speedups: Samples, latencies_s: Samples, *, timed_limits: int) -> Need:
    """What the pairs measured so far lack for a decision. The referee stops when no limit lacks anything any more.

    A waived limit with a ceiling needs a decision on both.
    """
    risk = alpha_fail(timed_limits)
    if limit.name == "max_latency":
        need = lacking_at_most(latencies_s, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    else:
        need = lacking_at_least(speedups, _least_speedup(limit), alpha_pass=ALPHA_PASS, alpha_fail=risk)
    ceiling = ceiling_of(limit)
    if ceiling is None:
        return need
    return max(need, lacking_timed(ceiling, speedups, latencies_s, timed_limits=timed_limits), key=NEEDS.index)


def _least_speedup(limit: Limit) -> float:
    return least_speedup(limit.value) if limit.name == "max_slowdown" else limit.value


def _judge_timed(case: Case, limit: Limit, timed_limits: int) -> Verdict:
    timing = case.timing
    if timing is None or not timing.pairs:
        return not_measured(case, limit)
    speedups, latencies_s = speedup_samples(timing), Samples(timing.variant_latencies_s(), timing.launches())
    risk = alpha_fail(timed_limits)
    decision: Decision
    if limit.name == "max_latency":
        samples = latencies_s
        decision = decide_at_most(samples, limit.value, alpha_pass=ALPHA_PASS, alpha_fail=risk)
        interval = latency_interval(samples, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    else:
        samples = speedups
        decision = decide_at_least(samples, _least_speedup(limit), alpha_pass=ALPHA_PASS, alpha_fail=risk)
        interval = speedup_interval(samples, alpha_pass=ALPHA_PASS, alpha_fail=risk)
    estimate = _in_unit_of(limit, median(samples.values))
    told = _told_timed(case, limit, estimate, interval, kept=decision != "fail")
    measured = f"{told} over {len(samples.values)} pairs"
    if decision == "fail":
        measured += by_how_much(case, limit, estimate)
    elif decision == "inconclusive":
        lacking = lacking_timed(limit, speedups, latencies_s, timed_limits=timed_limits)
        measured += f" in {timing.seconds:.3g} s, {_why_inconclusive(limit, samples, lacking, timing)}"
    return verdict(case, limit, decision, estimate, measured)


def _in_unit_of(limit: Limit, sample: float) -> float:
    return slowdown_of(sample) if limit.name == "max_slowdown" else sample


def _told_timed(case: Case, limit: Limit, estimate: float, interval: tuple[float, float], *, kept: bool) -> str:
    """'1.42x [1.3x, 1.5x]'."""
    if limit.name == "max_slowdown":
        return told_slowdown(case, limit, estimate, interval, kept)
    ends = [format_value(limit.name, end, digits=3) if 0 < end < inf else "?" for end in interval]
    return f"{shown(case, limit, estimate, kept=kept)} [{ends[0]}, {ends[1]}]"


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
    launches = [format_value(limit.name, _in_unit_of(limit, median(values))) for values in samples.by_launch()]
    return (
        f"and the launches of the workers contradict each other ({', '.join(launches)}), so more pairs would not help: "
        "give it a quieter machine, or a limit further from what is measured"
    )


def speedup_samples(timing: Timing) -> Samples:
    """The paired ratios of a comparison, with their launches."""
    return Samples(timing.speedups(), timing.launches())
