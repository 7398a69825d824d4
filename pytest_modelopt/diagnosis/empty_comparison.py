"""The gate must not lie: a comparison that compares nothing, an original from which nothing can be lost."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.limits.baseline_sanity import constant_answers, majority_score, why_worthless
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Finding


def compares_nothing(case: Case) -> bool:
    """Whether this case is known to compare a model with itself.

    Same modules, same bits, same settings and same answers, and no compiler or other runtime between: then the recipe
    only says that something is run otherwise.
    """
    looks = Evidence(case, None)
    before, after = looks.original, looks.variant
    if case.is_one_file and before.answers == after.answers:
        return True
    if case.variant is None or case.variant.runtime is not None or before.digest is None or before.answers is None:
        return False
    same = (before.digest, before.answers, before.compiled) == (after.digest, after.answers, after.compiled)
    return same and after.compiled is False and before.settings == after.settings


def original_useless(evidence: Evidence) -> Finding | None:
    """What to look for where the original is no better than guessing."""
    if constant_answers(evidence.case) is None and why_worthless(evidence.case) is None:
        return None
    return Finding("original-useless", {}, ("score", "predictions"))


def majority_as_good(evidence: Evidence) -> Finding | None:
    """An original that answering with one class would match: a drop cannot show a variant that does just that."""
    bounded = [evidence.limit(name) is not None for name in ("max_accuracy_drop", "max_slice_drop", "max_flips")]
    if bounded != [True, False, False] or majority_score(evidence.case) is None:
        return None
    if constant_answers(evidence.case) is not None or why_worthless(evidence.case) is not None:
        return None
    return Finding("majority-as-good", {}, ("score",), is_note=True)
