"""Limits against the base: head is the variant of such a case, the base's measurement is its original.

What head has no figure for was not measured, which is red: a limit must not be lost by breaking its meter. What only
the base has no figure for cannot be decided, and no change of head would mend it: inconclusive.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import median_low

from pytest_modelopt.judging.answer_limits import judge_answers
from pytest_modelopt.judging.baseline_sanity import why_useless
from pytest_modelopt.judging.deciding import Number, decide
from pytest_modelopt.judging.verdict_text import (
    base_name,
    by_how_much,
    not_measured,
    sentence,
    shown,
    told_drop,
    told_meter,
    undecided,
    verdict,
)
from pytest_modelopt.limits.catalogue import FIGURES, format_value
from pytest_modelopt.results.figures import format_bytes, format_percentage
from pytest_modelopt.results.metric import UNLABELLED
from pytest_modelopt.results.record import ORIGINAL, Case, Measurement
from pytest_modelopt.results.verdicts import Limit, Verdict

GROWTH_LIMITS = ("max_memory_growth", "max_size_growth")


# --- figures that are not there --------------------------------------------------------------------------------------


def not_comparable(case: Case, limit: Limit) -> Verdict | None:
    """The verdict where one of the two sides has no figure, or not the same kind of figure; None where both have."""
    base = case.base
    if base is None:
        return not_measured(case, limit, "the run compared nothing with a base")
    why = why_no_base(case)
    if why:
        return (not_measured if base.status == "unusable" else undecided)(case, limit, why)
    needed = FIGURES[limit.name]
    if needed == "memory" and case.foreign_runtimes:
        needed = "process_memory"
    at_head = _why_missing(case, case.variant, needed)
    if at_head:
        return not_measured(case, limit, at_head)
    at_base = _why_missing(case, case.original, needed)
    if at_base:
        return undecided(case, limit, f"{base_name(case)} has no {needed} figure to compare with: {_end(at_base)}")
    return _other_kind(case, limit, needed)


def why_no_base(case: Case) -> str:
    """Why none of the case's limits can be held against its base, in words; '' where there is one, or it is new."""
    status = "" if case.base is None else case.base.status
    told = {
        "unusable": f"the base {base_name(case)} could not be brought to run",
        "failed": f"there is nothing to compare with, since {base_name(case)} fails",
        "unpaired": "nothing was compared",
    }
    return f"{told[status]}: {_end(case.base.why)}" if case.base is not None and status in told else ""


def _why_missing(case: Case, side: Measurement | None, figure: str) -> str:
    """Why a side has no such figure, in words; empty where it has one."""
    if side is None:
        return "it was not measured at all"
    is_there = {
        "memory": bool(case.memory_peaks_bytes(side)),
        "process_memory": bool(case.memory_peaks_bytes(side)),
        "size": side.size_bytes is not None,
        "score": side.score is not None,
        "timing": case.timing is not None and bool(case.timing.pairs),
    }[figure]
    if is_there:
        return ""
    if figure == "timing" and side is case.variant and figure not in side.unmeasured and case.original is not None:
        # Pairs belong to both sides: they are missing for the reason that either of them states.
        return "" if figure in case.original.unmeasured else "the run produced no timing figure"
    return side.unmeasured.get(figure, f"the run produced no {figure} figure")


def _other_kind(case: Case, limit: Limit, figure: str) -> Verdict | None:
    """Where both sides have the figure, but of different things."""
    assert case.original is not None
    assert case.variant is not None
    sides = (case.original, case.variant)
    meters = [side.process_memory.meter for side in sides if side.process_memory is not None]
    if figure == "process_memory" and len(set(meters)) > 1:
        return undecided(
            case, limit, f"it was measured by {meters[0]} at {base_name(case)} and by {meters[1]} here: two meters"
        )
    data = {side.data_fingerprint for side in sides if side.data_fingerprint is not None}
    if figure == "score" and len(data) > 1:
        return undecided(case, limit, f"{base_name(case)} was scored on other examples")
    return None


def _end(why: str) -> str:
    """The end of a sentence that is no sentence's end."""
    return why.rstrip().removesuffix(".") or "the record does not say why"


# --- memory and size -------------------------------------------------------------------------------------------------


def judge_growth(case: Case, limit: Limit) -> Verdict:
    """Peaks, or saved bytes, of head over those of the base. Both sides are measured."""
    before, after = _bytes(case, limit, case.original), _bytes(case, limit, case.variant)
    low, high = _growth(max(before), min(after)), _growth(min(before), max(after))
    was, now = median_low(before), median_low(after)
    figure = _growth(was, now)
    decision = decide(case, limit, low, high)
    if math.isinf(figure):
        text = f"{format_bytes(now)} measured, and nothing at {base_name(case)}, so that no share allows it"
        return Verdict(limit, "fail", None, sentence(case, limit, f"is broken: {text}"))
    text = f"{_told_growth(case, limit, float(figure), decision == 'fail')} {_told_bytes(was, now)}"
    text += told_meter(case.variant) if limit.name == "max_memory_growth" and case.foreign_runtimes else ""
    if decision == "fail":
        text += by_how_much(case, limit, float(figure))
    elif decision == "inconclusive":
        ends = " to ".join(_end_of_spread(limit, end) for end in (low, high))
        text += f", and the limit lies within the measured spread, {ends}; give a limit further from what is measured"
    return verdict(case, limit, decision, figure, text)


def _bytes(case: Case, limit: Limit, side: Measurement | None) -> tuple[int, ...]:
    assert side is not None
    if limit.name == "max_memory_growth":
        return case.memory_peaks_bytes(side)
    assert side.size_bytes is not None
    return (side.size_bytes,)


def _growth(before: int, after: int) -> Number:
    """The share by which it grew; infinite from nothing to something."""
    if before <= 0:
        return Fraction(0) if after <= before else math.inf
    return Fraction(after, before) - 1


def _told_growth(case: Case, limit: Limit, growth: float, is_broken: bool) -> str:
    if growth == 0:
        return f"the same as at {base_name(case)}"
    if growth < 0:
        return f"{format_percentage(-growth)} less than at {base_name(case)}"
    return f"{shown(case, limit, growth, kept=not is_broken)} more than at {base_name(case)}"


def _told_bytes(was: int, now: int) -> str:
    """'(1.1 MiB, was 1 MiB)', with as many digits as it takes to tell them apart."""
    if was == now:
        return f"({format_bytes(now)})"
    pairs = [(format_bytes(now, digits=digits), format_bytes(was, digits=digits)) for digits in range(3, 18)]
    after, before = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"({after}, was {before})"


def _end_of_spread(limit: Limit, growth: Number) -> str:
    return "without bound" if math.isinf(growth) else format_value(limit.name, float(growth), digits=6)


# --- accuracy --------------------------------------------------------------------------------------------------------


def judge_loss(case: Case, limit: Limit) -> Verdict:
    """As a drop is judged. A base that is no better than guessing shows no loss, and head need not mend that.

    Where no answer is another one, nothing was lost, whatever the answers are worth.
    """
    told = judge_answers(case, limit)
    same = case.agreement
    if same is not None and not (same.flips or same.right_to_wrong or same.wrong_to_right):
        return told
    if case.recipe == ORIGINAL and case.metric in UNLABELLED and not _is_same_model(case):
        flips = "" if same is None or not same.flips else f"; {same.flips:,} of {same.examples:,} answers are others"
        return undecided(
            case,
            limit,
            f"{case.metric} holds each variant against its own original, so it gives the model as it is no score that "
            f"could drop{flips}; a metric with labels can tell what was lost",
        )
    useless = why_useless(case, limit)
    if told.outcome != "pass" or not useless or told.measured is None or told.measured < 0:
        return told
    figure = told_drop(case, limit, told.measured, kept=True)
    return undecided(case, limit, f"{figure}, which says nothing: {useless}", told.measured)


def _is_same_model(case: Case) -> bool:
    """Whether it is the same to the bit at both, as far as that was seen."""
    seen = [side.observations for side in (case.original, case.variant) if side is not None]
    digests = {each.digest if each is not None else None for each in seen}
    return len(digests) == 1 and None not in digests


# --- time ------------------------------------------------------------------------------------------------------------


def least_speedup(slowdown: float) -> float:
    """The ratio base / head, of times, that head must keep: with 0.25 it may take 1.25 times as long."""
    return 1 / (1 + slowdown)


def slowdown_of(speedup: float) -> float:
    """The share by which head takes longer; negative where it takes less."""
    return math.inf if speedup <= 0 else 1 / speedup - 1


def told_slowdown(case: Case, limit: Limit, slowdown: float, interval: tuple[float, float], kept: bool) -> str:
    """'12% slower [8%, 16%] than 1a2b3c4d5e6f': shares of the base's time, the interval in the direction of the figure.

    `interval` is that of the ratios base / head; an infinite one is left out.
    """
    amount = f"{shown(case, limit, abs(slowdown), kept=kept)} {'faster' if slowdown < 0 else 'slower'}"
    if not math.isfinite(interval[1]):
        return f"{amount} than {base_name(case)}"
    low, high = (slowdown_of(end) for end in reversed(interval))
    one_way = low * high >= 0
    ends = [_told_end(end, signed=not one_way) for end in ((high, low) if slowdown < 0 and one_way else (low, high))]
    return f"{amount} [{', '.join(ends)}] than {base_name(case)}"


def _told_end(slowdown: float, *, signed: bool) -> str:
    direction = f" {'faster' if slowdown < 0 else 'slower'}" if signed else ""
    return f"{format_percentage(abs(slowdown))}{direction}"
