"""Time a block of calls inside the worker. The referee decides whose turn it is; this only holds the stopwatch."""

from __future__ import annotations

import gc
import math
import resource
import time
from collections.abc import Callable

TARGET_BLOCK_NS = 1_000_000
"""A block is at least about this long, so that the clock and the interpreter do not show in it."""


class Stopwatch:
    """Blocks of one callable: `calls_per_block` timed calls after one that warms the caches."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        for _ in range(2):  # lazy initialisation: thread pools, packed weights, kernel selection
            call()
        fastest_ns = min(self._time_calls(1) for _ in range(3))
        self.calls_per_block = max(1, math.ceil(TARGET_BLOCK_NS / max(1, fastest_ns)))
        gc.collect()
        gc.freeze()

    def block(self) -> tuple[int, bool]:
        """(nanoseconds of the timed calls together, whether the operating system preempted this thread meanwhile)."""
        gc.disable()
        try:
            self._call()
            before = _involuntary_switches()
            elapsed = self._time_calls(self.calls_per_block)
            return elapsed, _involuntary_switches() > before
        finally:
            gc.enable()

    def _time_calls(self, calls: int) -> int:
        call = self._call
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return max(1, time.perf_counter_ns() - start)


def _involuntary_switches() -> int:
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    return resource.getrusage(who).ru_nivcsw
