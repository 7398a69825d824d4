"""The limit on how much of a model a recipe must change."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from pytest_modelopt.limits.kind import ExactKind, Number
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Limit


@dataclass(frozen=True)
class MinCoverage(ExactKind):
    is_about_recipe: ClassVar[bool] = True

    def figure_of(self, case: MeasuredCase) -> Number | None:
        found = case.coverage
        return Fraction(found.changed_bytes, found.weight_bytes) if found and found.weight_bytes else None

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 - headroom)


LIMITS = (
    MinCoverage(
        "min_coverage",
        "min",
        "percentage",
        "coverage",
        "The share of the weight bytes that the recipe must really change.",
    ),
)
