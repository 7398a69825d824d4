"""How figures stand to their limit: exactly, so that a case that lies at its limit is never decided by rounding."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.statistics.timing import Decision

Number: TypeAlias = "float | Fraction"
"""Shares of integers are fractions, figures that were measured as floats are floats."""


def bounds_from_above(case: Case, limit: Limit) -> bool:
    """Whether more is worse. The floor of a score is a ceiling where the metric is better when it is lower."""
    if limit.name == "min_accuracy" and not case.higher_is_better:
        return True
    return LIMITS[limit.name].direction == "max"


def decide(case: Case, limit: Limit, low: Number, high: Number) -> Decision:
    """Of everything from `low` to `high`: whether the limit allows all of it, or none. To lie at a limit keeps it."""
    if bounds_from_above(case, limit):
        if compared(high, limit) <= 0:
            return "pass"
        return "fail" if compared(low, limit) > 0 else "inconclusive"
    if compared(low, limit) >= 0:
        return "pass"
    return "fail" if compared(high, limit) < 0 else "inconclusive"


def compared(figure: Number, limit: Limit) -> int:
    """Below, at or above the limit: -1, 0, 1.

    The author wrote a decimal number: to a fraction 0.6 means 6/10, not the binary float nearest to it.
    """
    bound = limit.value if isinstance(figure, float) else Fraction(repr(limit.value))
    return (figure > bound) - (figure < bound)
