"""The machine while pairs are timed: what others took of it, and the lock that keeps other timings away meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOCK_NAME = "pytest-modelopt-timing.lock"
_ASK_AGAIN_S = 0.25


class LockUnavailable(Exception):
    """The machine-wide lock could not be had; the message says why, and what to do."""


def lock_file() -> Path:
    """One file for the whole machine: not in $TMPDIR, which tox and job runners set anew for each run."""
    common = Path("/tmp")  # filelock follows no link there, and the file holds nothing
    return (common if os.access(common, os.W_OK) else Path(tempfile.gettempdir())) / LOCK_NAME


@contextlib.contextmanager
def alone(path: Path, limit_s: float, on_wait: Callable[[float], None]) -> Iterator[float]:
    """Hold the lock on `path`; the value is the seconds waited for it. `on_wait(seconds so far)` is called meanwhile.

    It ends with the process that holds it, so that a killed run never blocks the next one.

    Raises:
        LockUnavailable: after `limit_s`, or where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o666)  # jobs of other users wait, too
    start = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_ASK_AGAIN_S, poll_interval=0.02)
            break
        except Timeout:
            waited = time.monotonic() - start
            on_wait(waited)
            if waited >= limit_s:
                raise LockUnavailable(
                    f"others on this machine have been timing for {waited:.0f} s (`step_limit`): they hold {path}; run "
                    "fewer jobs at a time, or raise `step_limit`"
                ) from None
        except OSError as error:
            raise LockUnavailable(f"the file that keeps timings apart cannot be used: {path}: {error}") from error
    try:
        yield time.monotonic() - start
    finally:
        lock.release()


@dataclass(frozen=True)
class Reading:
    """Counters of the machine at one moment. None where the system has no such counter."""

    at_s: float
    busy_s: float | None
    """Processor time of all processes since the machine started."""
    stolen_s: float | None
    throttled_s: float | None

    def since(self, earlier: Reading) -> Reading:
        """What came to pass between two readings."""
        return Reading(
            self.at_s - earlier.at_s,
            _difference(self.busy_s, earlier.busy_s),
            _difference(self.stolen_s, earlier.stolen_s),
            _difference(self.throttled_s, earlier.throttled_s),
        )

    def plus(self, other: Reading) -> Reading:
        """Two spans of time together."""
        return Reading(
            self.at_s + other.at_s,
            _sum(self.busy_s, other.busy_s),
            _sum(self.stolen_s, other.stolen_s),
            _sum(self.throttled_s, other.throttled_s),
        )


def read() -> Reading:
    """The counters now: /proc/stat, and the control group's own."""
    busy_s, stolen_s = _processor_counters()
    return Reading(time.monotonic(), busy_s, stolen_s, _throttled_s())


def load() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def cores() -> int:
    return os.cpu_count() or 1


def _processor_counters() -> tuple[float | None, float | None]:
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in first[1:9])
    except (OSError, ValueError):
        return None, None
    per_second = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / per_second, steal / per_second


def _throttled_s() -> float | None:
    """Seconds for which this process's own control group (version 2) was stopped by its quota."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        counters = Path(f"/sys/fs/cgroup{path}/cpu.stat").read_text(encoding="ascii").split()
        return int(counters[counters.index("throttled_usec") + 1]) / 1e6
    except (OSError, ValueError, StopIteration, IndexError):
        return None


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
