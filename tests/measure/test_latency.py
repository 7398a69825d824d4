"""The stopwatch in its own process: what it knows of the threads that work."""

from __future__ import annotations

import sys
import time

import pytest

from pytest_modelopt.measure.latency import _processor_time_of_threads


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the processor time of a thread")
def test_the_thread_that_works_is_seen_however_short_the_work_is() -> None:
    """Between two ticks of its clock the kernel adds up nothing by itself: nine of ten readings were 0."""
    for _ in range(50):
        before = _processor_time_of_threads()
        end = time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < end:
            pass
        after = _processor_time_of_threads()
        assert before is not None
        assert after is not None
        assert sum(after.values()) > sum(before.values())
