"""Limits on loading: how long a fresh process takes from the start of loading a saved variant to its first answer."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_modelopt.limits.latency import MaxLatency, MinSpeedup
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.starts import start_speedup, start_time
from pytest_modelopt.statistics.timing import Estimate


class _OfLoading:
    """Decided by pairs of fresh processes, each of which is evidence of its own, however long it took."""

    def timing_of(self, case: MeasuredCase) -> Timing | None:
        return case.loading

    def is_open(self, limit: Limit, samples: Samples, timed_limits: int, finalists: int = 1) -> bool:
        return False

    def seconds_of_segment(self, timing: Timing, estimate: Estimate) -> float:
        return timing.seconds / estimate.segments


@dataclass(frozen=True)
class MaxLoadTime(_OfLoading, MaxLatency):
    def estimate_of(self, samples: Samples) -> Estimate:
        return start_time(samples)


@dataclass(frozen=True)
class MinLoadSpeedup(_OfLoading, MinSpeedup):
    def estimate_of(self, samples: Samples) -> Estimate:
        return start_speedup(samples)


LIMITS = (
    MaxLoadTime(
        "max_load_time",
        "max",
        "time",
        "loading",
        "The longest that a fresh process may take from the start of loading the saved variant to its first answer.",
    ),
    MinLoadSpeedup(
        "min_load_speedup",
        "min",
        "factor",
        "loading",
        "How many times as fast as the saved original a fresh process must load the variant and answer.",
    ),
)
