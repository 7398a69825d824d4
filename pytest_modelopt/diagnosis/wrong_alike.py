"""All answers of a candidate are wrong alike: its inputs are prepared for another model, or its outputs lie beside."""

from __future__ import annotations

from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.results.observations import OtherInputs
from pytest_modelopt.results.verdicts import Detail, Finding, Row

_RIGHT = 0.9
"""Of the answers: with so many that agree, the inputs are those that it was made for."""
_FEWER = 3
"""By which factor the answers that differ become fewer, and how much fewer they are than where the original's commonest
answer is given always."""
_LEAST = 5
"""Answers that agree only then."""


def wrong_alike(evidence: Evidence) -> Finding | None:
    """One finding, the one that says the most."""
    variant = evidence.case.variant
    if variant is None or variant.provenance is None:
        return None
    tried = evidence.variant.other_inputs
    found = None if tried is None else _prepared_otherwise(tried) or _renamed(tried) or _shifted(tried)
    found = found or _one_class(evidence)
    return None if found is None else Finding("wrong-alike", found, ("score", "predictions"), is_note=True)


def _prepared_otherwise(tried: OtherInputs) -> dict[str, Detail] | None:
    if "" not in tried.agreeing or tried.answers < 1:  # a record may say anything
        return None
    change, best = max(tried.agreeing.items(), key=lambda each: each[1])
    given, wrong = tried.agreeing[""], tried.answers - best
    is_right = best >= _RIGHT * tried.answers and best - given >= _LEAST
    is_better = _FEWER * wrong <= tried.answers - max(given, tried.commonest)
    if not is_right or not is_better:
        return None
    return {"kind": "inputs", "change": change, "agreeing": best, "as_given": given, "answers": tried.answers}


def _renamed(tried: OtherInputs) -> dict[str, Detail] | None:
    """Each pair of classes is taken from the answers themselves, so that its first example proves nothing."""
    explained, given = sum(count for *_, count in tried.renamed), tried.agreeing.get("", 0)
    moved = [pair for pair in tried.renamed if pair[0] != pair[1]]
    if min((count for *_, count in tried.renamed), default=0) < 1 or not 0 <= given <= explained <= tried.answers:
        return None  # a record may say anything
    if explained - len(tried.renamed) < _RIGHT * (tried.answers - len(tried.renamed)):
        return None
    if len(moved) < 2 or sum(count - 1 for *_, count in moved) < _LEAST:
        return None
    if _FEWER * (tried.answers - explained) > tried.answers - max(given, tried.commonest):
        return None
    shown: list[Row] = [{"original": before, "candidate": after} for before, after, _ in moved]
    return {"kind": "classes", "agreeing": explained, "as_given": given, "answers": tried.answers, "moved": shown}


def _shifted(tried: OtherInputs) -> dict[str, Detail] | None:
    if not tried.shifts:
        return None
    index, shift = max(enumerate(tried.shifts), key=lambda each: abs(each[1]))
    return {"kind": "constant", "output": index, "shift": shift, "answers": tried.answers}


def _one_class(evidence: Evidence) -> dict[str, Detail] | None:
    before, after, examples = evidence.original, evidence.variant, evidence.case.variant
    if after.predicted_classes != 1 or (before.predicted_classes or 0) < 2 or examples is None:
        return None
    return {"kind": "class", "examples": examples.examples, "classes": before.predicted_classes}
