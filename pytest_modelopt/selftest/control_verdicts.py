"""What a control must show, and whether its measured case shows it: pure functions of the case."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, TypeAlias

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.measuring.worker.failing_control import SHARE
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_factor, format_percentage
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.verdicts import Limit, Verdict

OTHERWISE = Limit("max_accuracy_drop", 0.05, "5 pp", "error", "selftest", 0)
"""What is tried where no case of the model states a limit on accuracy."""
LOSSLESS = "fold-batchnorm"
_ROUNDING = 1e-3
"""As a share of the score: a metric that knows no predictions sees in what order kernels add."""
_FEW_EXAMPLES = 20
_FEW_FLIPS = 0.05

Outcome = Literal["ok", "NOT ok", "does not apply"]
Budgets: TypeAlias = tuple[tuple[str, tuple[Limit, ...]], ...]
"""(name of a case, its limits on accuracy), of each case of the model that has any."""


@dataclass(frozen=True)
class Control:
    """One control: what it must show, what it shows, and the verdict, with a reason where there is one."""

    name: str
    must_show: str
    shows: str
    outcome: Outcome
    why: str = ""


# --- identity --------------------------------------------------------------------------------------------------------


def judge_identity(case: MeasuredCase, speed_limit: float) -> Control:
    """The original against itself: as fast, the same answers, the same bytes."""
    parts = [_speed(case, speed_limit), _answers(case), *_bytes(case)]
    faults = [fault for _, fault in parts if fault]
    if case.error is not None:
        faults.append(f"{case.error.stage}: {case.error.message}")
    return Control(
        "identity",
        "1.00x, 0 flips, drop 0, the same bytes",
        ", ".join(shown for shown, _ in parts if shown) or "nothing",
        "NOT ok" if faults else "ok",
        "; ".join(faults),
    )


_Part: TypeAlias = tuple[str, str]
"""(what is shown, what is wrong with it); either may be empty."""


def _speed(case: MeasuredCase, speed_limit: float) -> _Part:
    """Wrong is only what the limit would notice and what is no chance: noise alone must not alarm."""
    if case.timing is None or not case.timing.pairs:
        why = case.variant.unmeasured.get("timing", "") if case.variant is not None else ""
        return "", f"not timed: {why}" if why else "" if case.error is not None else "not timed"
    estimate = speedup_of(case.timing)
    low, high = interval_of(estimate, timed_limits=1)
    if not math.isfinite(high):
        return format_factor(estimate.figure), (
            f"so few pairs ({len(case.timing.pairs)}) say nothing about its speed; give it more time (--time-limit)"
        )
    shown = f"{format_factor(estimate.figure)} [{format_factor(low)}, {format_factor(high)}]"
    if 1 / (1 + speed_limit) <= estimate.figure <= 1 + speed_limit or low <= 1 <= high:
        return shown, ""
    return shown, (
        f"against itself the model reads {shown}, and a limit of {format_percentage(speed_limit)} would take that for "
        "a change: give it a quieter machine"
    )


def _answers(case: MeasuredCase) -> _Part:
    changed, drop = case.agreement, case.drop
    if changed is not None:
        shown = f"{changed.flips:,} of {changed.examples:,} flips"
        shown += f", drop {_format_drop(case, drop)}" if drop is not None else ""
        differs = bool(changed.flips or changed.right_to_wrong or changed.wrong_to_right)
    elif drop is not None:
        shown, differs = f"drop {_format_drop(case, drop)}", not _is_rounding(case, drop)
    else:
        looks = [side.observations for side in (case.reference, case.variant) if side is not None]
        answers = [look.answers for look in looks if look is not None and look.answers is not None]
        if len(answers) < 2:
            return "", "" if case.error is not None else f"no answers to compare{_why_no_score(case)}"
        differs = answers[0] != answers[1]
        shown = "other answers" if differs else "the same answers"
    return shown, _why_it_differs(case) if differs else ""


def _why_it_differs(case: MeasuredCase) -> str:
    repeat = case.reference.repeat if case.reference is not None else None
    if repeat is None:
        return "nothing was done to the model and it answers differently: its factory gives other weights each time"
    told = f": {repeat.flips:,} of {repeat.examples:,} predictions change between two passes" if repeat.flips else ""
    return (
        f"the original answers differently each time{told}; limits on accuracy mean nothing until it "
        "repeats its answers"
    )


def _why_no_score(case: MeasuredCase) -> str:
    reasons = [
        side.unmeasured["score"] for side in (case.reference, case.variant) if side and "score" in side.unmeasured
    ]
    return f" ({reasons[0]})" if reasons else ""


def _bytes(case: MeasuredCase) -> list[_Part]:
    """A figure that neither side has is told and is no fault of this control: the gate itself would say so, too."""
    if case.reference is None or case.variant is None:
        return []
    unmeasured, other = [], []
    figures: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
        ("size", _one(case.reference.size_bytes), _one(case.variant.size_bytes)),
        ("memory", case.memory_peaks_bytes(case.reference), case.memory_peaks_bytes(case.variant)),
    ]
    for what, before, after in figures:
        if not before and not after:
            unmeasured.append(f"{what} not measured")
        elif not before or not after or max(before) < min(after) or max(after) < min(before):
            other.append(f"{what} {_format_median(before)} and {_format_median(after)}")
    if other:
        fault = "nothing was done to the model and its bytes differ: its factory or its first call gives another one"
        return [(text, fault if index == 0 else "") for index, text in enumerate(other)]
    same = "" if len(unmeasured) == 2 else "the same bytes"
    return [(text, "") for text in (same, *unmeasured)]


def _one(figure: int | None) -> tuple[int, ...]:
    return () if figure is None else (figure,)


def _format_median(figures: tuple[int, ...]) -> str:
    return f"{median(figures):,.0f} B" if figures else "not measured"


# --- lossless --------------------------------------------------------------------------------------------------------


def judge_lossless(case: MeasuredCase) -> Control:
    """A recipe that keeps every answer: no prediction may change."""
    refused = _refusal(case)
    if refused:
        return Control("lossless", f"0 flips ({LOSSLESS})", "", "does not apply", refused)
    changed, drop, why = case.agreement, case.drop, ""
    if case.error is not None:
        shown, why = "an error", f"{case.error.stage}: {case.error.message}"
    elif changed is not None:
        shown = f"{changed.flips:,} of {changed.examples:,} flips"
        if changed.flips:
            why = (
                f"{LOSSLESS} computes the same function, and {changed.flips:,} predictions changed: so many lie within "
                "rounding of another class (16-bit weights, ties), and any recipe flips those"
            )
    elif drop is not None:
        shown = f"drop {_format_drop(case, drop)}"
        if not _is_rounding(case, drop):
            why = f"{LOSSLESS} computes the same function, and the score moved by more than rounding"
    else:
        why = f"{case.metric} gives neither predictions nor a drop that could be compared"
        return Control("lossless", f"0 flips ({LOSSLESS})", "", "does not apply", why)
    return Control("lossless", f"0 flips ({LOSSLESS})", shown, "NOT ok" if why else "ok", why)


def _refusal(case: MeasuredCase) -> str:
    """Why the recipe cannot be applied to this model, in its own words; '' where it was, or where the worker died."""
    if case.error is None or case.error.stage != "optimize" or case.error.message.startswith("the worker"):
        return ""
    return case.error.message


# --- sabotaged -------------------------------------------------------------------------------------------------------


def judge_sabotaged(case: MeasuredCase, budgets: Budgets) -> Control:
    """Most weights are gone: each case of the model that limits accuracy must turn red."""
    must_show = _demand(case, budgets)
    if _refusal(case):
        return Control("sabotaged", must_show, "", "does not apply", _refusal(case))
    if case.error is not None:
        told = f"{case.error.stage}: {case.error.message}"
        if case.error.stage == "score":  # it answers what cannot even be scored, as NaN: that case would be red
            return Control("sabotaged", must_show, "an error", "ok", told)
        return Control("sabotaged", must_show, "an error", "NOT ok", told)
    shown = _format_sabotage(case)
    if not budgets and in_unit_interval(case.metric) is not True:
        drop = case.drop
        if drop is not None and drop > 0 and not _is_rounding(case, drop):
            return Control("sabotaged", must_show, shown, "ok")
        return Control("sabotaged", must_show, shown, "NOT ok", f"its score is no worse: {_likely(case, ())}")
    passed = []
    for name, limits in budgets or (("", (OTHERWISE,)),):
        verdicts = judge(replace(case, limits=limits), timed_limits=0).verdicts
        if not any(verdict.outcome == "fail" for verdict in verdicts):
            passed.append(_passed(case, name, verdicts))
    return Control("sabotaged", must_show, shown, "NOT ok" if passed else "ok", "; ".join(passed))


def _demand(case: MeasuredCase, budgets: Budgets) -> str:
    if len(budgets) > 1:
        return f"a broken accuracy limit in each of {len(budgets)} cases"
    if budgets:
        return f"{' or '.join(f'{limit.name} {limit.text}' for limit in budgets[0][1])} broken"
    if in_unit_interval(case.metric) is True:
        return f"{OTHERWISE.name} {OTHERWISE.text} broken (no case limits accuracy)"
    return "a worse score (no case limits accuracy)"


def _format_sabotage(case: MeasuredCase) -> str:
    parts = []
    if case.reference is not None and case.variant is not None and case.variant.score is not None:
        unit = in_unit_interval(case.metric)
        scores = [
            "?" if side.score is None else LIMITS["min_accuracy"].format(side.score, unit_interval=unit)
            for side in (case.reference, case.variant)
        ]
        parts.append(f"{case.metric} {scores[0]} -> {scores[1]}")
    if case.agreement is not None:
        parts.append(f"{case.agreement.flips:,} of {case.agreement.examples:,} flips")
    return ", ".join(parts) or "no score"


def _passed(case: MeasuredCase, name: str, verdicts: tuple[Verdict, ...]) -> str:
    """Why no limit of one case is broken: what holds, and the likely reason."""
    who = name or f"the limit {OTHERWISE.name} {OTHERWISE.text}"
    red_anyway = [format_verdict(case, verdict) for verdict in verdicts if verdict.outcome == "not measured"]
    if red_anyway:
        return f"{who} is red for every variant, which proves nothing: {red_anyway[0]}"
    held = " and ".join(
        f"leaves {verdict.limit.name} {verdict.limit.text} undecided"
        if verdict.outcome == "inconclusive"
        else f"keeps {verdict.limit.name} {verdict.limit.text}"
        for verdict in verdicts
    )
    keeps = f"{who} {held}" if name else f"{who} holds"
    limits = tuple(verdict.limit for verdict in verdicts)
    return f"{keeps} with {format_percentage(SHARE)} of the weights at zero: {_likely(case, limits)}"


def _likely(case: MeasuredCase, limits: tuple[Limit, ...]) -> str:
    """The most specific reason that the figures show."""
    original, changed = case.reference, case.agreement
    assert original is not None
    seen = original.observations
    if seen is not None and seen.target_classes == 1:
        return f"all {original.examples:,} targets are of one class, so an answer that never changes can be right"
    if original.examples < _FEW_EXAMPLES:
        return f"{original.examples:,} examples are too few to show it"
    allowed = [limit for limit in limits if limit.name == "max_accuracy_drop"]
    if allowed and original.score is not None and case.higher_is_better and 0 <= original.score <= allowed[0].value:
        return f"the original has no more than {allowed[0].text} to lose"
    if changed is not None and changed.flips < _FEW_FLIPS * changed.examples:
        return (
            f"{changed.flips:,} of {changed.examples:,} predictions changed, so what this data asks hardly depends on "
            "the weights, or its targets are made by the model that is measured"
        )
    return f"{case.metric} hardly sees that the answers are others, or the limit allows too much"


# --- words and rounding ----------------------------------------------------------------------------------------------


def _format_drop(case: MeasuredCase, drop: float) -> str:
    return LIMITS["max_accuracy_drop"].format(drop, unit_interval=in_unit_interval(case.metric))


def _is_rounding(case: MeasuredCase, drop: float) -> bool:
    scores = [abs(side.score) for side in (case.reference, case.variant) if side is not None and side.score is not None]
    return abs(drop) <= max(1e-6, _ROUNDING * max(scores, default=0.0))
