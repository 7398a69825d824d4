"""All figures of a case that are made of two others: reductions, growth, drop, speedup, slowdown, latencies.

Limits, tables, JUnit, OpenMetrics, the fixtures and the doctor take them from here, so that no two of them differ.
Figures that are counted in bytes are exact, as fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pytest_modelopt.limits.latency import latencies_s, load_time_of, p95_latency_of, slowdown, speedup_of
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.timed_pairs import Timing


def growth(before: int | None, after: int | None) -> Fraction | None:
    """By which share of `before` a figure grew; None where one of them is missing, or there is nothing to grow from."""
    return None if after is None or not before or before < 0 else Fraction(after, before) - 1


def reduction(before: int | None, after: int | None) -> Fraction | None:
    """Which share of `before` was saved; negative where it grew, None as `growth`."""
    grown = growth(before, after)
    return None if grown is None else -grown


@dataclass(frozen=True)
class Derived:
    """The derived figures of `case`; each is None where one of those that it is made of was not measured.

    Shares of the other side's figure, which is the original's, or the base's. Seconds.
    """

    case: MeasuredCase

    @property
    def memory_growth(self) -> float | None:
        return _number(growth(*(self.case.memory_bytes(side) for side in (self.case.reference, self.case.variant))))

    @property
    def memory_reduction(self) -> float | None:
        return _number(reduction(*(self.case.memory_bytes(side) for side in (self.case.reference, self.case.variant))))

    @property
    def size_growth(self) -> float | None:
        return _number(growth(*self._sizes))

    @property
    def size_reduction(self) -> float | None:
        return _number(reduction(*self._sizes))

    @property
    def drop(self) -> float | None:
        """In the metric's own unit."""
        return self.case.drop

    @property
    def timing(self) -> Timing | None:
        """The timing, where it has pairs."""
        return self.case.timing if self.case.timing is not None and self.case.timing.pairs else None

    @property
    def speedup(self) -> float | None:
        return None if self.timing is None else speedup_of(self.timing).figure

    @property
    def slowdown(self) -> float | None:
        """The share by which a call takes longer."""
        return None if self.timing is None else slowdown(speedup_of(self.timing).figure)

    @property
    def latency_s(self) -> float | None:
        """Of the variant, in this comparison."""
        return None if self.timing is None else latencies_s(self.timing)[1]

    @property
    def examples_per_second(self) -> float | None:
        """Of the variant, in calls of the batch that is timed, one after the other; None for a batch of one, whose
        latency says it."""
        batch = self.case.batch_size
        return None if self.latency_s is None or batch == 1 else batch / self.latency_s

    @property
    def p95_latency_s(self) -> float | None:
        """Of the variant's single calls, where a limit asked for them."""
        timing = self.timing
        return None if timing is None or not timing.variant_calls_ns else p95_latency_of(timing).figure

    @property
    def load_time_s(self) -> float | None:
        """Of the variant in a fresh process, up to its first answer, where a limit asked for it."""
        loading = self.case.loading
        return None if loading is None or not loading.pairs else load_time_of(loading).figure

    @property
    def _sizes(self) -> tuple[int | None, int | None]:
        original, variant = self.case.reference, self.case.variant
        return original.size_bytes if original else None, variant.size_bytes if variant else None


def _number(share: Fraction | None) -> float | None:
    return None if share is None else float(share)
