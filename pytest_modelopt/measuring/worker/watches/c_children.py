"""Bytes that children of C code have read and written, such as those of `system` and `popen`, as the kernel tells.

A thread that lives has counts of its own. What stands in the process's counts and in no thread's is of threads that
have ended and of children that were waited for. Threads of Python and children that Python waits for are noted; what is
then left is of children of C, unless a thread of C has ended, too.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_modelopt import system

_TASKS = f"{system.PROC}/self/task"
_TRIES = 5
_END_NS = 1_000_000
"""Processor time of a Python thread after it was noted."""


@dataclass(frozen=True)
class Counts:
    """Of processes or threads, as far as they are over."""

    read: int = 0
    written: int = 0
    faults: int = 0
    """Of processes only."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.read + other.read, self.written + other.written, self.faults + other.faults)


@dataclass(frozen=True)
class _Over:
    """Of ended threads and of children that were waited for, since the process started."""

    counts: Counts
    least_ns: int
    most_ns: int
    """Processor time of ended threads, between two bounds: threads work while they are looked at."""
    living: frozenset[int]


_before: list[_Over] = []
_threads: dict[int, tuple[Counts, int]] = {}
"""Of each Python thread that has come to its end: its counts, and its processor time in ns."""


def watch() -> None:
    """Note from now on what each Python thread has read when it ends."""
    now = _over()
    if now is not None:
        _before.append(now)
        threading.Thread._bootstrap = _noting(threading.Thread._bootstrap)  # type: ignore[attr-defined]


def waited_for_by_c(noted: Counts) -> Counts:
    """Of children since `watch` that are not among those that Python has waited for, `noted`. Nothing where a thread of
    C has ended as well: nobody can tell which of both has read, and what a thread reads is this process's own."""
    if not _before or system.faults_of_children() - _before[0].counts.faults <= noted.faults:
        return Counts()
    before, now = _before[0], _over()
    if now is None:
        return Counts()
    ended = [found for thread, found in list(_threads.items()) if thread not in now.living]
    if now.least_ns - before.most_ns > sum(used + _END_NS for _, used in ended):
        return Counts()
    known = sum((counts for counts, _ in ended), before.counts + noted)
    read, written = now.counts.read - known.read, now.counts.written - known.written
    return Counts(max(0, read), max(0, written), now.counts.faults - known.faults)


def of_ended(pid: int) -> Counts:
    """Of a child that has ended and that nobody has waited for, with its own children. Raises OSError where another
    user owns it, and where it is gone."""
    read = _counts(f"{system.PROC}/{pid}/io")
    fields = Path(f"{system.PROC}/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return read + Counts(faults=int(fields[7]) + int(fields[8]))


def of_process() -> Counts:
    """Of this process, with its ended children. Raises OSError where the kernel does not tell."""
    return _counts(f"{system.PROC}/self/io")


def _counts(file: str) -> Counts:
    lines = Path(file).read_text(encoding="ascii").splitlines()
    found = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return Counts(found["rchar"], found["wchar"])


def _noting(bootstrap: Callable[[Any], None]) -> Callable[[Any], None]:
    def noted(thread: Any) -> None:
        try:
            bootstrap(thread)
        finally:
            with contextlib.suppress(OSError):  # then it is a thread of which nobody knows
                _threads[threading.get_native_id()] = _counts(f"{system.PROC}/thread-self/io"), time.thread_time_ns()

    return noted


def _over() -> _Over | None:
    """None where the kernel does not tell, or threads come and go while they are counted."""
    own = threading.get_native_id()
    for _ in range(_TRIES):
        try:
            living = frozenset(map(int, os.listdir(_TASKS)))  # noqa: PTH208
            others = sorted(living - {own})
            # This thread's own clock runs on: it is read right before and right after the process's.
            most = -sum(map(_used_ns, others)) - time.thread_time_ns()
            whole_ns = time.process_time_ns()
            least = -time.thread_time_ns() - sum(map(_used_ns, others))
            whole = of_process()
            # What looking reads is this thread's, which is therefore the first.
            each = [_counts(f"{_TASKS}/{thread}/io") for thread in (own, *others)]
            if frozenset(map(int, os.listdir(_TASKS))) != living:  # noqa: PTH208
                continue
        except OSError:
            continue
        lives = sum(each, Counts())
        over = Counts(whole.read - lives.read, whole.written - lives.written, system.faults_of_children())
        return _Over(over, whole_ns + least, whole_ns + most, living)
    return None


def _used_ns(thread: int) -> int:
    """Processor time of any thread of this process: its number within Linux's number of its clock."""
    return time.clock_gettime_ns((~thread << 3) | 6)
