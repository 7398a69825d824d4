"""The stopwatch of a worker: it times a block of calls when the controller asks for one."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pytest_modelopt import system
from pytest_modelopt.measuring.protocol import Block, Usage
from pytest_modelopt.optimizing.calling import in_one_process

_BLOCK_NS = 10_000_000
"""The timed calls of a block take at least this long together, and their mean is its figure: so what disturbs a block
for a moment slows short calls down as it does long ones."""
_BLOCK_LIMIT_NS = 50_000_000
"""Of a block in which others have the processor most of the time."""
_READING_NS = 100_000
"""Calls that are shorter are timed several at a time, so that the clock and the interpreter do not show."""
_WARM_NS, _WARM_READINGS, _WARM_LIMIT_NS = 3_000_000, 3, 100_000_000
"""A block is warm when for so long, and so often, no call has been faster than before, or when the limit is reached."""
_FASTER = 0.98
"""A call is faster than another where it takes less than this share of its time."""
_CANARY_CALLS = 6
"""The first ones bring its data into the caches."""
_SINGLE_CALLS, _SINGLE_CALLS_LIMIT_NS = 10, 1_000_000_000
"""How many calls are timed one by one after a block, unless they take longer together."""
_SHARE_OF_WORK = 0.05
"""A thread that took less of the processor time than this did not do the model's work."""

Call = Callable[[], object]


class Timed(Protocol):
    """What is timed (`given_inputs.TimedCall`)."""

    def prepared(self, calls: int) -> Call: ...
    def is_clean(self) -> bool: ...


Clock = Callable[[Call, int], int]
"""(call, how many) -> nanoseconds that they took together."""


def host_clock(call: Call, calls: int) -> int:
    """Wall time on the host: for work that has ended when the call returns."""
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return max(1, time.perf_counter_ns() - start)


def canary_ns(canary: Call) -> int:
    """What the canary takes."""
    return min(host_clock(canary, 1) for _ in range(_CANARY_CALLS))


class Stopwatch:
    """Blocks of one callable: untimed calls until they get no faster, and then timed ones.

    While the other program had its turn the caches were filled with its data, and a user's program, which serves one
    call after the other, knows only the warm model.
    """

    def __init__(self, timed: Timed, clock: Clock, canary: Callable[[], int] | None) -> None:
        """`canary` gives the nanoseconds of a fixed piece of work of some 20 us, by which the state of the machine is
        known."""
        self._canary = canary
        self._timed, self._clock, self._delay = timed, clock, Delay()
        for _ in range(2):  # lazy initialisation: thread pools, packed weights, kernel selection
            self._read_ns(1)
        before = _times_of_threads()
        fastest_ns = self._fastest_call_ns()
        self.active_threads = _active_threads(before, _times_of_threads())
        self._calls_per_reading = max(1, math.ceil(_READING_NS / fastest_ns))
        gc.collect()
        gc.freeze()
        self._started, self._processor_start = time.perf_counter_ns(), time.process_time_ns()
        self._ready_start = _ready_ns_of_other_threads()
        self._in_blocks = self._processor_in_blocks = self._ready_in_blocks = 0

    def block(self, *, single_calls: bool = False) -> Block:
        """The figures of one block whose calls were all alike, with times of `single_calls` behind it."""
        block = self._block(single_calls)
        return block if self._timed.is_clean() else self._block(single_calls)

    def _block(self, single_calls: bool) -> Block:
        gc.disable()
        try:
            ready = _ready_ns_of_other_threads()
            start, processor = time.perf_counter_ns(), time.process_time_ns()
            self._warm_up()
            warming_ns = time.perf_counter_ns() - start
            readings = elapsed_ns = delayed_ns = 0
            while elapsed_ns - delayed_ns < _BLOCK_NS and elapsed_ns < _BLOCK_LIMIT_NS:
                reading_ns, of_others_ns = self._read_and_delay_ns(self._calls_per_reading)
                elapsed_ns += reading_ns
                delayed_ns += of_others_ns
                readings += 1
            singles = tuple(self._single_calls_ns()) if single_calls else ()
            self._processor_in_blocks += time.process_time_ns() - processor
            self._in_blocks += time.perf_counter_ns() - start
            self._ready_in_blocks += _ready_ns_of_other_threads() - ready
        finally:
            gc.enable()
        return Block(
            call_ns=max(1, round((elapsed_ns - delayed_ns) / (readings * self._calls_per_reading))),
            calls=readings * self._calls_per_reading,
            elapsed_ns=elapsed_ns,
            warming_ns=warming_ns,
            delayed_ns=delayed_ns,
            canary_ns=0 if self._canary is None else self._canary(),
            calls_ns=singles,
        )

    def _single_calls_ns(self) -> Iterator[int]:
        """One by one, as warm as those of the block, and without the time that others had."""
        spent_ns = 0
        for _ in range(_SINGLE_CALLS):
            call_ns, delayed_ns = self._read_and_delay_ns(1)
            yield max(1, call_ns - delayed_ns)
            spent_ns += call_ns
            if spent_ns >= _SINGLE_CALLS_LIMIT_NS:
                return

    def _warm_up(self) -> None:
        best_ns = spent_ns = self._read_ns(self._calls_per_reading)
        unchanged_ns = unchanged = 0
        while (unchanged_ns < _WARM_NS or unchanged < _WARM_READINGS) and spent_ns < _WARM_LIMIT_NS:
            reading_ns = self._read_ns(self._calls_per_reading)
            spent_ns += reading_ns
            unchanged_ns += reading_ns
            unchanged += 1
            if reading_ns < _FASTER * best_ns:
                best_ns, unchanged_ns, unchanged = reading_ns, 0, 0

    def _read_and_delay_ns(self, calls: int) -> tuple[int, int]:
        """A reading of so many calls, and how much of it others had; a GPU works on while its host waits."""
        start_ns, before_ns = time.perf_counter_ns(), self._delay.read_ns()
        reading_ns = self._read_ns(calls)
        delayed_ns, beside_ns = self._delay.read_ns() - before_ns, time.perf_counter_ns() - start_ns - reading_ns
        if self._clock is not host_clock:
            return reading_ns, 0
        return reading_ns, max(0, min(delayed_ns - beside_ns, reading_ns))  # what came before or after it is not in it

    def _read_ns(self, calls: int) -> int:
        prepared = self._timed.prepared(calls)
        return in_one_process(lambda: self._clock(prepared, calls))

    def usage(self, threads: int, compilations: int, others: Sequence[Stopwatch] = ()) -> Usage:
        """What this process did with the processor since the stopwatch was made. `threads` are those in force.

        `others`: of the same process, made before it, whose blocks came after.
        """
        every = (self, *others)
        processor_ns = time.process_time_ns() - self._processor_start
        idle_ns = time.perf_counter_ns() - self._started - sum(each._in_blocks for each in every)
        kept_ns = processor_ns - sum(each._processor_in_blocks for each in every)
        ready_ns = _ready_ns_of_other_threads() - self._ready_start - sum(each._ready_in_blocks for each in every)
        active = [each.active_threads for each in every if each.active_threads is not None]
        return Usage(
            threads=threads,
            active_threads=max(active, default=None),
            processor_ns=processor_ns,
            idle_cores=min(max(0, kept_ns, ready_ns) / max(1, idle_ns), system.cores()),
            compilations=compilations,
        )

    def _fastest_call_ns(self) -> int:
        fastest, spent, calls = 2**62, 0, 0
        while calls < 5 or (spent < _BLOCK_NS and calls < 200):
            elapsed = self._read_ns(1)
            fastest, spent, calls = min(fastest, elapsed), spent + elapsed, calls + 1
        return fastest


class Slowed:
    """A call, and then a busy wait for `share` of the time that it took: known to be slower by that much."""

    def __init__(self, timed: Timed, share: float, finish: Callable[[], None]) -> None:
        """`finish` waits for what the call has only begun."""
        self._timed, self._share, self._finish = timed, share, finish

    def prepared(self, calls: int) -> Call:
        call, share, finish = self._timed.prepared(calls), self._share, self._finish

        def slower() -> object:
            start = time.perf_counter_ns()
            result = call()
            finish()
            end = start + (time.perf_counter_ns() - start) * (1 + share)
            while time.perf_counter_ns() < end:
                pass
            return result

        return slower

    def is_clean(self) -> bool:
        return self._timed.is_clean()


class Delay:
    """How long this thread has been ready to run while others had the processor; always 0 where nothing tells."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(system.PROC / "thread-self" / "schedstat", os.O_RDONLY | system.CLOSED_WITH_A_PROGRAM)

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def read_ns(self) -> int:
        return 0 if self._file is None else int(os.pread(self._file, 64, 0).split()[1])


def _times_of_threads() -> dict[str, tuple[int, int]] | None:
    """Nanoseconds of each thread of this process on the processor, and of waiting for it while it was ready to run;
    None where the system does not tell."""
    times = {}
    if hasattr(os, "sched_yield"):
        os.sched_yield()  # the kernel adds up the time of the thread that runs only when it lets go, or at a tick
    try:
        for thread in (system.PROC / "self" / "task").iterdir():
            spent, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
            times[thread.name] = int(spent), int(waited)
    except (OSError, ValueError):
        return None
    return times


def _ready_ns_of_other_threads() -> int:
    """How long they had the processor or waited for it: on a busy machine one that spins gets little of it."""
    own = str(threading.get_native_id())
    return sum(sum(times) for thread, times in (_times_of_threads() or {}).items() if thread != own)


def _active_threads(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> int | None:
    """How many threads shared the work between two readings. Needed since a runtime may ignore torch's setting."""
    if before is None or after is None:
        return None
    spent = {thread: times[0] - before.get(thread, (0, 0))[0] for thread, times in after.items()}
    total = sum(spent.values())
    return sum(time_ns > _SHARE_OF_WORK * total for time_ns in spent.values()) if total else None
