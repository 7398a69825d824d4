"""Limits on what grew since the base: peaks of memory, and saved bytes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from statistics import median_low

from pytest_modelopt.limits.derived import growth
from pytest_modelopt.limits.kind import LimitKind, Number, ends
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict


@dataclass(frozen=True)
class GrowthKind(LimitKind):
    @abstractmethod
    def bytes_of(self, case: MeasuredCase, side: Measurement) -> tuple[int, ...]:
        """All that the runs of a meter have read; one figure where it repeats."""

    def is_of_process(self, case: MeasuredCase) -> bool:
        """Whether it is read from whole processes."""
        return False

    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        """Of a case of which both sides are measured."""
        assert case.reference is not None
        assert case.variant is not None
        before, after = self.bytes_of(case, case.reference), self.bytes_of(case, case.variant)
        low, high = _growth(max(before), min(after)), _growth(min(before), max(after))
        was, now = median_low(before), median_low(after)
        figure = _growth(was, now)
        reason = Reason("growth", {"was": was, "now": now, "by_process": self.is_of_process(case)})
        if math.isinf(figure):
            return Verdict(limit, "fail", None, reason)
        return Verdict(limit, self.decide(case, limit, low, high), float(figure), reason, *ends(low, high))

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return (1 + end) * (1 + headroom) - 1


@dataclass(frozen=True)
class MaxMemoryGrowth(GrowthKind):
    def bytes_of(self, case: MeasuredCase, side: Measurement) -> tuple[int, ...]:
        return case.memory_peaks_bytes(side)

    def is_of_process(self, case: MeasuredCase) -> bool:
        return bool(case.foreign_runtimes)


@dataclass(frozen=True)
class MaxSizeGrowth(GrowthKind):
    def bytes_of(self, case: MeasuredCase, side: Measurement) -> tuple[int, ...]:
        assert side.size_bytes is not None
        return (side.size_bytes,)


def _growth(before: int, after: int) -> Number:
    """The share by which it grew; infinite from nothing to something."""
    grown = growth(before, after)
    if grown is None:
        return Fraction(0) if after <= before else math.inf
    return grown


AGAINST_BASE = (
    MaxMemoryGrowth(
        "max_memory_growth",
        "max",
        "percentage",
        "memory",
        "The share by which the peak memory of one call may be larger than at the base.",
        "base",
    ),
    MaxSizeGrowth(
        "max_size_growth",
        "max",
        "percentage",
        "size",
        "The share by which the saved bytes may be more than at the base.",
        "base",
    ),
)
