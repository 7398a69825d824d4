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
    """Blocks of one callable: `calls_per_block` timed calls, after untimed ones that warm the caches (at least one)."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        for _ in range(2):  # lazy initialisation: thread pools, packed weights, kernel selection
            call()
        self.calls_per_block = max(1, math.ceil(TARGET_BLOCK_NS / self._fastest_call_ns()))
        gc.collect()
        gc.freeze()

    def block(self) -> tuple[int, bool]:
        """(nanoseconds of the timed calls together, whether the operating system preempted this thread meanwhile)."""
        gc.disable()
        try:
            self._time_calls(max(1, self.calls_per_block // 4))
            before = _involuntary_switches()
            elapsed = self._time_calls(self.calls_per_block)
            return elapsed, _involuntary_switches() > before
        finally:
            gc.enable()

    def _fastest_call_ns(self) -> int:
        """Of enough calls that two workers with the same model come to the same block."""
        fastest, spent, calls = 2**62, 0, 0
        while calls < 5 or (spent < 10 * TARGET_BLOCK_NS and calls < 200):
            elapsed = self._time_calls(1)
            fastest, spent, calls = min(fastest, elapsed), spent + elapsed, calls + 1
        return fastest

    def _time_calls(self, calls: int) -> int:
        call = self._call
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return max(1, time.perf_counter_ns() - start)


def _involuntary_switches() -> int:
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    return resource.getrusage(who).ru_nivcsw
