"""The gate must not lie: a comparison that compares nothing, an original from which nothing can be lost."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.limits.baseline_sanity import constant_answers, majority_score, why_worthless
from pytest_modelopt.reporting.messages.reasons import format_useless
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Finding


def nothing_compared(case: Case) -> str:
    """Why this case compares a model with itself, in words; '' where it does not, or where nobody can tell.

    Same modules, same bits, same settings and same answers, and no compiler or other runtime between: then the recipe
    only says that something is run otherwise.
    """
    looks = Evidence(case, None)
    before, after = looks.original, looks.variant
    if case.variant is None or case.variant.runtime is not None or before.digest is None or before.answers is None:
        return ""
    same = (before.digest, before.answers, before.compiled) == (after.digest, after.answers, after.compiled)
    if not same or after.compiled is not False or before.settings != after.settings:
        return ""
    if case.variant.provenance is not None:
        return (
            f"nothing was compared: the candidate {case.recipe} is the original once more, the same modules with the "
            "same bits and the same answers: let its factory load the candidate's weights"
        )
    return (
        f"nothing was compared: after {case.recipe} the variant is the original, the same modules with the same bits "
        "and the same answers, and neither the compiler nor another runtime runs it; a recipe must change what it "
        "names in `reached`"
    )


def original_useless(evidence: Evidence) -> Finding | None:
    """What to look for where the original is no better than guessing."""
    reason = constant_answers(evidence.case) or why_worthless(evidence.case)
    if reason is None:
        return None
    why = format_useless(evidence.case, reason)
    return Finding(
        "original-useless",
        f"{why}: check that the factory loads the trained weights, that the targets are of this model's kind and in "
        "the order of the inputs, and that `data` is prepared as in training",
        ("score", "predictions"),
    )


def majority_as_good(evidence: Evidence) -> Finding | None:
    """An original that answering with one class would match: a drop cannot show a variant that does just that."""
    reason = majority_score(evidence.case)
    bounded = [evidence.limit(name) is not None for name in ("max_accuracy_drop", "max_slice_drop", "max_flips")]
    if (
        reason is None
        or constant_answers(evidence.case)
        or why_worthless(evidence.case)
        or bounded != [True, False, False]
    ):
        return None
    why = format_useless(evidence.case, reason)
    return Finding(
        "majority-as-good",
        f"{why}: max_accuracy_drop cannot show a variant that gives no other answer any more; bound `max_slice_drop` "
        "or `max_flips`, too, or take a metric that weighs all classes alike",
        ("score",),
        is_note=True,
    )
