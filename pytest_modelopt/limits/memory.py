"""Limits on memory. Their figure may come from several processes: inside its spread nothing is kept or broken."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import ClassVar

from pytest_modelopt.limits.derived import reduction
from pytest_modelopt.limits.kind import LimitKind, Number, ends, share_left
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict


@dataclass(frozen=True)
class _Range:
    """All that the runs of a meter allow a figure to be; both ends are the figure itself where it is exact."""

    low: Number
    figure: Number
    high: Number


@dataclass(frozen=True)
class MemoryKind(LimitKind):
    @abstractmethod
    def range_of(self, case: MeasuredCase) -> _Range | None:
        """None where it was not measured."""

    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        found = self.range_of(case)
        if found is None:
            return self.not_measured(limit)
        decision = self.decide(case, limit, found.low, found.high)
        reason = Reason("measured", {"by_process": self.is_of_process(case)})
        return Verdict(limit, decision, float(found.figure), reason, *ends(found.low, found.high))

    def is_of_process(self, case: MeasuredCase) -> bool:
        """Whether it is read from whole processes, and not from torch's allocator."""
        return bool(case.foreign_runtimes)

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


@dataclass(frozen=True)
class MaxMemory(MemoryKind):
    is_absolute: ClassVar[bool] = True

    def range_of(self, case: MeasuredCase) -> _Range | None:
        return _range(case.memory_peaks_bytes(case.variant))


@dataclass(frozen=True)
class MaxProcessMemory(MemoryKind):
    is_absolute: ClassVar[bool] = True

    def range_of(self, case: MeasuredCase) -> _Range | None:
        process = case.variant.process_memory if case.variant else None
        return _range(process.peaks_bytes) if process else None

    def is_of_process(self, case: MeasuredCase) -> bool:
        return True


@dataclass(frozen=True)
class MinMemoryReduction(MemoryKind):
    def range_of(self, case: MeasuredCase) -> _Range | None:
        original, variant = case.memory_peaks_bytes(case.reference), case.memory_peaks_bytes(case.variant)
        if not variant or not original or _meters_differ(case):
            return None
        low = reduction(min(original), max(variant))
        figure = reduction(median_low(original), median_low(variant))
        high = reduction(max(original), min(variant))
        return None if low is None or figure is None or high is None else _Range(low, figure, high)

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return share_left(end, headroom)


def _range(peaks_bytes: Sequence[int]) -> _Range | None:
    return _Range(min(peaks_bytes), median_low(peaks_bytes), max(peaks_bytes)) if peaks_bytes else None


def _meters_differ(case: MeasuredCase) -> bool:
    """Whether figures of two process meters would be compared, which read different things."""
    sides = (case.reference, case.variant)
    meters = {side.process_memory.meter for side in sides if side is not None and side.process_memory}
    return bool(case.foreign_runtimes) and len(meters) > 1


LIMITS = (
    MaxMemory(
        "max_memory",
        "max",
        "bytes",
        "memory",
        "The most memory that one call of the variant may take at its peak, weights included.",
    ),
    MinMemoryReduction(
        "min_memory_reduction",
        "min",
        "percentage",
        "memory",
        "The share of the original's peak memory that the variant must save.",
    ),
    MaxProcessMemory(
        "max_process_memory",
        "max",
        "bytes",
        "process_memory",
        "The most memory that a fresh process may take at its peak to load the saved variant and call it once.",
    ),
)
