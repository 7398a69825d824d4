"""Why a limit has no figure, or none that could decide: a clause for each code."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.spelling import plain
from pytest_modelopt.reporting.messages.figures import answer_figure, base_name, format_score, without_end
from pytest_modelopt.reporting.names import sides
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_percentage
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.verdicts import Reason, Verdict

_ON_THE_SET = "`inference: set` judges these examples themselves"
_NAME_SLICES = "name slices with `slices: package.module:function`"


def format_useless(case: MeasuredCase, reason: Reason | None) -> str:
    """Why nothing can be lost from this original; '' for no reason."""
    if reason is None:
        return ""
    found, name = reason.parameters, sides(case)[0]
    if reason.code == "original-constant":
        return f"the {name} predicts the same class for every example, of {found['classes']} classes"
    if reason.code == "original-worst":
        return (
            f"the {name} itself scores {_score(case, found['score'])}, the worst that {case.metric} can give, and from "
            "there nothing can drop"
        )
    if reason.code == "original-chance":
        guesses, classes = found["guesses"], found["classes"]
        among = f"guessing among {classes} classes" if guesses == 1 else f"{guesses} guesses among {classes} classes"
        than = "not clearly more than" if found["is_more"] else "no more than"
        return (
            f"the {name} itself is right on {_share(found['score'])} of the {found['examples']:,} examples, {than} "
            f"{among}, and from there no drop means anything"
        )
    if reason.code == "original-unpaired":
        return (
            f"the {name} itself scores {_score(case, found['score'])}, and {_score(case, found['shifted'])} with each "
            f"answer beside the target of the next example ({found['examples']:,} examples): the score does not tell "
            "right answers from others, so no drop means anything"
        )
    if reason.code == "original-majority":
        return (
            f"the original is right on {_share(found['score'])} of the examples, and the most frequent class as the "
            f"answer to all of them would be right on {_share(found['majority'])}"
        )
    assert reason.code == "original-below-floor", reason.code
    return (
        f"the original itself does not reach min_accuracy {found['floor']}: a model that is wrong before and after has "
        "dropped nothing"
    )


def why_no_base(case: MeasuredCase) -> str:
    """Why none of the case's limits can be held against its base; '' where there is one, or it is new."""
    beginnings = {
        "unusable": f"the base {base_name(case)} could not be brought to run",
        "failed": f"there is nothing to compare with, since {base_name(case)} fails",
        "unpaired": "nothing was compared",
    }
    if case.base is None or case.base.status not in beginnings:
        return ""
    return f"{beginnings[case.base.status]}: {without_end(case.base.why)}"


def _missing(case: MeasuredCase, verdict: Verdict) -> str:
    needed = LIMITS[verdict.limit.name].figure_in(case)
    if LIMITS[verdict.limit.name].is_about_generation and case.generation is None:
        return "the model is called once: state how it generates, `call: {generate: {new_tokens: 64, prompt: 512}}`"
    by_reason: dict[str, list[str]] = {}
    for side in (case.reference, case.variant):
        if side is not None and needed in side.unmeasured:
            by_reason.setdefault(side.unmeasured[needed], []).append(side.recipe or "original")
    texts = [f"{' and '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return "; ".join(texts) or f"the run produced no {needed} figure"


def _missing_on(case: MeasuredCase, side: Measurement | None, verdict: Verdict) -> str:
    needed = LIMITS[verdict.limit.name].figure_in(case)
    if side is None:
        return "it was not measured at all"
    return side.unmeasured.get(needed) or f"the run produced no {needed} figure"


def _missing_at_base(case: MeasuredCase, verdict: Verdict) -> str:
    needed = LIMITS[verdict.limit.name].figure_in(case)
    why = without_end(_missing_on(case, case.reference, verdict))
    return f"{base_name(case)} has no {needed} figure to compare with: {why}"


def _two_meters(case: MeasuredCase, verdict: Verdict) -> str:
    meters = [side.process_memory.meter for side in (case.reference, case.variant) if side and side.process_memory]
    return f"it was measured by {meters[0]} at {base_name(case)} and by {meters[1]} here: two meters"


def _no_slices(case: MeasuredCase, verdict: Verdict) -> str:
    if case.slices is not None and case.slices.names:
        return f"{case.metric} has no value on any of the {len(case.slices.names):,} slices"
    given = [side.unmeasured for side in (case.reference, case.variant) if side is not None]
    reasons = dict.fromkeys(unmeasured["slices"] for unmeasured in given if "slices" in unmeasured)
    why = "; ".join(reasons) or "there are no slices: only a classifier with targets has classes to tell apart"
    return why if "`slices:" in why else f"{why}; {_NAME_SLICES}"


def _without_bounds(case: MeasuredCase, verdict: Verdict) -> str:
    """In the population. Against a base, after what was measured."""
    found = verdict.reason.parameters
    why = {
        "no-interval": f"the drop has no interval: {case.no_interval or 'the run made none'}",
        "not-right-or-wrong": (
            f"{case.metric} is not right-or-wrong per example, and of such a metric only the drop gets an interval"
        ),
        "no-share": f"a score of {found.get('score', 0):g} is no share of {found.get('examples')} examples",
    }[verdict.reason.code]
    text = f"{why}; {_ON_THE_SET}"
    if verdict.measured is None:
        return text
    return f"{answer_figure(case, verdict.limit, verdict.measured, kept=False)}, but {text}"


def _unlabelled(case: MeasuredCase, verdict: Verdict) -> str:
    same = case.agreement
    flips = "" if same is None or not same.flips else f"; {same.flips:,} of {same.examples:,} answers are others"
    return (
        f"{case.metric} holds each variant against its own original, so it gives the model as it is no score that "
        f"could drop{flips}; a metric with labels can tell what was lost"
    )


def _worthless_base(case: MeasuredCase, verdict: Verdict) -> str:
    assert verdict.measured is not None
    found = verdict.reason.parameters
    useless = format_useless(case, Reason(str(found["useless"]), found))
    return f"{answer_figure(case, verdict.limit, verdict.measured, kept=True)}, which says nothing: {useless}"


def _few_examples(case: MeasuredCase, verdict: Verdict) -> str:
    assert verdict.measured is not None
    assert case.variant is not None
    figure = answer_figure(case, verdict.limit, verdict.measured, kept=False)
    return f"{figure} on {case.variant.examples:,} examples; {case.no_interval}"


REASONS: dict[str, Callable[[MeasuredCase, Verdict], str]] = {
    "missing": _missing,
    "missing-at-head": lambda case, verdict: _missing_on(case, case.variant, verdict),
    "missing-at-base": _missing_at_base,
    "nothing-against-base": lambda case, verdict: "the run compared nothing with a base",
    "not-against-base": lambda case, verdict: (
        "it is no limit against a base, and this case compares head with its base"
    ),
    "no-base": lambda case, verdict: why_no_base(case),
    "no-single-calls": lambda case, verdict: (
        "single calls were not timed, since no limit of that run asked for them: measure again with this limit"
    ),
    "two-meters": _two_meters,
    "other-examples": lambda case, verdict: f"{base_name(case)} was scored on other examples",
    "no-slices": _no_slices,
    "slices-not-right-or-wrong": lambda case, verdict: (
        f"{plain(case.metric or 'the metric')} is not right-or-wrong per example, and single slices get no interval; "
        f"{_ON_THE_SET}"
    ),
    "interval-lacks-examples": _few_examples,
    "no-interval": _without_bounds,
    "not-right-or-wrong": _without_bounds,
    "no-share": _without_bounds,
    "unlabelled-original": _unlabelled,
    "worthless-base": _worthless_base,
    **dict.fromkeys(
        ("original-constant", "original-worst", "original-chance", "original-unpaired", "original-below-floor"),
        lambda case, verdict: format_useless(case, verdict.reason),
    ),
}
"""By the code of a verdict's reason."""


def _score(case: MeasuredCase, score: object) -> str:
    return format_score(case, score) if isinstance(score, int | float) else str(score)


def _share(share: object) -> str:
    return format_percentage(share) if isinstance(share, int | float) else str(share)
