"""The machine while pairs are timed: what others took of it, and the lock that keeps other timings away meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt import system

WAIT_LIMIT_S = 3600.0
"""A queue of many jobs is no fault of any of them; but nothing waits without an end."""
_FOLDER, _LOCK = "pytest-modelopt", "timing.lock"
_ASK_AGAIN_S = 0.25


class LockUnavailable(Exception):
    """The machine-wide lock could not be had; the message says why, and what to do."""


def lock_file() -> Path:
    """One file for the whole machine: not in $TMPDIR, which tox and job runners set anew for each run.

    It lies in a folder that everybody may write to: in /tmp itself neither the kernel nor filelock lets one user take a
    lock in the file of another. The file holds nothing, and no link is followed. Where there is no such folder, users
    have a file each.
    """
    temporary = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    folder = temporary / _FOLDER
    with contextlib.suppress(OSError):
        folder.mkdir()
        folder.chmod(0o777)  # whatever the umask of whoever comes first
    if folder.is_dir() and not folder.is_symlink() and os.access(folder, os.W_OK):
        return folder / _LOCK
    return temporary / f"{_FOLDER}-{system.user()}.lock"


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
                    f"others on this machine have been timing for {waited:.0f} s: they hold {path}; run fewer jobs "
                    "at a time"
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
    """The counters now: of the cores that this process may run on, and of its control group."""
    busy_s, stolen_s = system.processor_seconds() or (None, None)
    return Reading(time.monotonic(), busy_s, stolen_s, _throttled_s())


def load() -> float | None:
    """Load average of the last minute."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _throttled_s() -> float | None:
    """Seconds for which a quota stopped this process's control group, of version 2 or 1."""
    for folder, version in system.control_groups("cpu"):
        name, per_second = ("throttled_usec", 1e6) if version == 2 else ("throttled_time", 1e9)
        for counter in system.text(folder / "cpu.stat").splitlines():
            if counter.startswith(f"{name} "):
                return int(counter.split()[1]) / per_second
    return None


def _difference(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else later - earlier


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
