"""The stopwatch: its blocks by a clock whose readings are known, and what it knows of the threads that work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from pytest_modelopt.measuring.worker.calls.latency import Call, Stopwatch, _times_of_threads, canary_ns, host_clock

MS = 1_000_000


class KnownClock:
    """Calls take what `call_ns` says of their number, counted since the last `restart`."""

    def __init__(self, call_ns: Callable[[int], int]) -> None:
        self.call_ns, self.calls, self.at_a_time = call_ns, 0, list[int]()

    def __call__(self, call: Call, calls: int) -> int:
        self.at_a_time.append(calls)
        self.calls += calls
        return sum(self.call_ns(number) for number in range(self.calls - calls, self.calls))

    def restart(self) -> None:
        self.calls, self.at_a_time = 0, []


class Nothing:
    """What is timed: the clock knows what it takes."""

    def __call__(self) -> None: ...

    def prepared(self, calls: int) -> Call:
        return self

    def is_clean(self) -> bool:
        return True


def stopwatch(clock: KnownClock, canary: Callable[[], int] | None = None) -> Stopwatch:
    made = Stopwatch(Nothing(), clock, canary)
    clock.restart()
    return made


def test_a_block_begins_when_calls_get_no_faster() -> None:
    """The first call after the other program's turn takes 9 ms, and each later one loses half of what is above 1 ms."""
    clock = KnownClock(lambda number: MS + 8 * MS // 2**number)
    watch = stopwatch(clock)
    for _ in range(3):
        clock.restart()
        block = watch.block()
        assert MS <= block.call_ns < 1.01 * MS
        assert 10 * MS <= block.elapsed_ns < 10.2 * MS


def test_calls_that_never_stop_getting_faster_are_timed_all_the_same() -> None:
    clock = KnownClock(lambda number: int(10 * MS * 0.97**number))
    watch = stopwatch(clock)
    block = watch.block()
    warming_ns = sum(clock.call_ns(number) for number in range(clock.calls - block.calls))
    assert 100 * MS <= warming_ns <= 110 * MS


def test_the_figure_of_a_block_is_the_mean_of_its_timed_calls() -> None:
    """Four calls of 1 ms warm up: the first, and three that are no faster."""
    times = [MS, MS, MS, MS, 3 * MS, 1 * MS, 4 * MS, 2 * MS]
    block = stopwatch(KnownClock(lambda number: times[number])).block()
    assert (block.call_ns, block.calls, block.elapsed_ns) == (2_500_000, 4, 10 * MS)


def test_a_long_call_is_not_warm_before_three_are_no_faster() -> None:
    """Three milliseconds are less than one of its calls: 16, 12, 8, and then 4 ms for good."""
    clock = KnownClock(lambda number: max(4, 16 - 4 * number) * MS)
    block = stopwatch(clock).block()
    assert (block.call_ns, block.calls) == (4 * MS, 3)
    assert clock.calls == 3 + 4 + 3


class BesideReadings:
    """Others have the processor for 4 ms, once in a while, between the clock and the look at how long they had it."""

    def __init__(self) -> None:
        self.total_ns = self.looks = 0

    def read_ns(self) -> int:
        self.looks += 1
        if self.looks % 4 == 0:
            time.sleep(0.004)
            self.total_ns += 4 * MS
        return self.total_ns


def test_what_others_took_between_two_readings_is_not_taken_off_a_reading() -> None:
    watch = Stopwatch(Nothing(), host_clock, None)
    watch._delay = BesideReadings()  # type: ignore[assignment]
    assert watch.block().delayed_ns < MS  # of some ten times 4 ms, or of whole readings


def test_short_calls_are_read_several_at_a_time() -> None:
    """100 of 1 us are 100 us, of which the clock itself takes a thousandth."""
    clock = KnownClock(lambda number: 1_000)
    block = stopwatch(clock).block()
    assert set(clock.at_a_time) == {100}
    assert (block.call_ns, block.calls, block.elapsed_ns) == (1_000, 10_000, 10 * MS)


def test_a_long_call_is_a_block_by_itself() -> None:
    clock = KnownClock(lambda number: 80 * MS)
    block = stopwatch(clock).block()
    assert clock.at_a_time == [1, 1, 1], "two to warm up, and one that is timed"
    assert (block.call_ns, block.calls, block.elapsed_ns) == (80 * MS, 1, 80 * MS)


def test_a_canary_is_timed_beside_each_block_and_a_block_without_one_says_so() -> None:
    calls: list[None] = []
    assert stopwatch(KnownClock(lambda number: MS)).block().canary_ns == 0
    watch = stopwatch(KnownClock(lambda number: MS), canary=lambda: canary_ns(lambda: calls.append(None)))
    assert watch.block().canary_ns > 0
    assert len(calls) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells the processor time of a thread")
def test_the_thread_that_works_is_seen_however_short_the_work_is() -> None:
    """Between two ticks of its clock the kernel adds up nothing by itself: nine of ten readings were 0."""
    for _ in range(50):
        before = _times_of_threads()
        end = time.perf_counter_ns() + 200_000
        while time.perf_counter_ns() < end:
            pass
        after = _times_of_threads()
        assert before is not None
        assert after is not None
        assert sum(spent for spent, _ in after.values()) > sum(spent for spent, _ in before.values())
