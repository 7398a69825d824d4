"""Limits on what grew since the base: peaks of memory, and saved bytes."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from statistics import median_low

from pytest_modelopt.limits.kind import LimitKind, Number
from pytest_modelopt.limits.verdict_text import base_name, sentence, told_meter
from pytest_modelopt.results.figures import format_bytes, format_percentage
from pytest_modelopt.results.record import Case, Measurement
from pytest_modelopt.results.verdicts import Limit, Verdict


@dataclass(frozen=True)
class GrowthKind(LimitKind):
    @abstractmethod
    def bytes_of(self, case: Case, side: Measurement) -> tuple[int, ...]:
        """All that the runs of a meter have read; one figure where it repeats."""

    def meter_of(self, case: Case) -> str:
        """How it was measured, in words; empty where that is always the same."""
        return ""

    def judge(self, case: Case, limit: Limit, timed_limits: int) -> Verdict:
        """Of a case of which both sides are measured."""
        assert case.original is not None
        assert case.variant is not None
        before, after = self.bytes_of(case, case.original), self.bytes_of(case, case.variant)
        low, high = _growth(max(before), min(after)), _growth(min(before), max(after))
        was, now = median_low(before), median_low(after)
        figure = _growth(was, now)
        decision = self.decide(case, limit, low, high)
        if math.isinf(figure):
            text = f"{format_bytes(now)} measured, and nothing at {base_name(case)}, so that no share allows it"
            return Verdict(limit, "fail", None, sentence(case, limit, f"is broken: {text}"))
        text = f"{self._told(case, limit, float(figure), decision == 'fail')} {_told_bytes(was, now)}"
        text += self.meter_of(case)
        if decision == "fail":
            text += self.by_how_much(case, limit, float(figure))
        elif decision == "inconclusive":
            ends = " to ".join(self._told_end(end) for end in (low, high))
            text += (
                f", and the limit lies within the measured spread, {ends}; give a limit further from what is measured"
            )
        return self.verdict(case, limit, decision, figure, text)

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return (1 + end) * (1 + headroom) - 1

    def _told(self, case: Case, limit: Limit, growth: float, is_broken: bool) -> str:
        if growth == 0:
            return f"the same as at {base_name(case)}"
        if growth < 0:
            return f"{format_percentage(-growth)} less than at {base_name(case)}"
        return f"{self.shown(case, limit, growth, kept=not is_broken)} more than at {base_name(case)}"

    def _told_end(self, growth: Number) -> str:
        return "without bound" if math.isinf(growth) else self.format(float(growth), digits=6)


@dataclass(frozen=True)
class MaxMemoryGrowth(GrowthKind):
    def bytes_of(self, case: Case, side: Measurement) -> tuple[int, ...]:
        return case.memory_peaks_bytes(side)

    def meter_of(self, case: Case) -> str:
        return told_meter(case.variant) if case.foreign_runtimes else ""


@dataclass(frozen=True)
class MaxSizeGrowth(GrowthKind):
    def bytes_of(self, case: Case, side: Measurement) -> tuple[int, ...]:
        assert side.size_bytes is not None
        return (side.size_bytes,)


def _growth(before: int, after: int) -> Number:
    """The share by which it grew; infinite from nothing to something."""
    if before <= 0:
        return Fraction(0) if after <= before else math.inf
    return Fraction(after, before) - 1


def _told_bytes(was: int, now: int) -> str:
    """'(1.1 MiB, was 1 MiB)', with as many digits as it takes to tell them apart."""
    if was == now:
        return f"({format_bytes(now)})"
    pairs = [(format_bytes(now, digits=digits), format_bytes(was, digits=digits)) for digits in range(3, 18)]
    after, before = next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
    return f"({after}, was {before})"


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
