"""Limits of a record whose value is not what their text says: reports show the text, and verdicts compare the value."""

from __future__ import annotations

from pytest_modelopt.limits.catalogue import LIMITS, parse_value
from pytest_modelopt.limits.spelling import shown
from pytest_modelopt.results.case import Case


def misstated(case: Case) -> str:
    """The first limit, or ceiling of a waiver, of the case whose text and value contradict each other; '' for none.

    A limit that is not in the catalogue is not judged, so its value does not matter.
    """
    for limit in case.limits:
        if limit.name not in LIMITS:
            continue
        stated = [(limit.name, limit.text, limit.value)]
        if limit.waiver is not None and limit.waiver.ceiling is not None:
            stated.append((f"the ceiling of {limit.name}", limit.waiver.ceiling_text, limit.waiver.ceiling))
        for what, text, value in stated:
            if _value(limit.name, text) != value:
                return f"{what} contradicts itself: its text is {shown(text)}, its value {value:.10g}"
    return ""


def _value(name: str, text: str) -> float | None:
    """What an author means by the text: with a unit, or the number that it is in a budgets file or a marker."""
    for read in (str, float):
        try:
            return parse_value(name, read(text))
        except ValueError:  # UnitError is one
            continue
    return None
