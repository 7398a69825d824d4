"""Limits on the bytes of the saved variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_modelopt.limits.derived import reduction
from pytest_modelopt.limits.kind import ExactKind, Number, share_left
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Limit


@dataclass(frozen=True)
class MaxSize(ExactKind):
    is_absolute: ClassVar[bool] = True

    def figure_of(self, case: MeasuredCase) -> Number | None:
        return case.variant.size_bytes if case.variant else None

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


@dataclass(frozen=True)
class MinSizeReduction(ExactKind):
    def figure_of(self, case: MeasuredCase) -> Number | None:
        return reduction(*(side.size_bytes if side is not None else None for side in (case.reference, case.variant)))

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return share_left(end, headroom)


LIMITS = (
    MaxSize("max_size", "max", "bytes", "size", "The most bytes that the saved variant may have."),
    MinSizeReduction(
        "min_size_reduction",
        "min",
        "percentage",
        "size",
        "The share of the saved original's bytes that the variant must save.",
    ),
)
