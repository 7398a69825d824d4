"""The lock of the machine: while one comparison is timed, nobody else times or prepares one.

It is a reader/writer lock of two files. A timing holds the first one, and the second exclusively; whoever prepares
(optimizes, scores, builds) shares the second, and passes through the first on the way in. So a timing that waits lets
those that prepare end their step and lets no new one begin.
"""

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
_POLL_S = 0.02
_alone: set[Path] = set()
"""Held by this process for a timing: what is prepared within it, as the process that it times, has the machine
already."""


class LockUnavailable(Exception):
    """The machine-wide lock could not be had; the message says why, and what to do."""


@dataclass
class Held:
    """The machine for oneself."""

    waited_s: float
    since: float
    """Seconds since 1970."""

    @property
    def span_ms(self) -> tuple[int, int]:
        """From when until now, in milliseconds since 1970."""
        return round(1000 * self.since), round(1000 * time.time())


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
def alone(path: Path, limit_s: float, on_wait: Callable[[float], None]) -> Iterator[Held]:
    """Have the machine for oneself, for timing. `on_wait(seconds so far)` is called while others time or prepare.

    It ends with the process that holds it, so that a killed run never blocks the next one.

    Raises:
        LockUnavailable: after `limit_s`, or where the file cannot be made.
    """
    waiting = _Waiting(path, limit_s, on_wait)
    with waiting.turn(), waiting.shares(shared=False):
        _alone.add(path)
        try:
            yield Held(waiting.waited_s, time.time())
        finally:
            _alone.discard(path)


@contextlib.contextmanager
def shared(path: Path, limit_s: float, on_wait: Callable[[float], None]) -> Iterator[float]:
    """Share the machine with others that prepare, while none is timed; the value is the seconds waited for that.

    Where the system has no shared locks, or the file cannot be made, nothing is held: timings still exclude each other.

    Raises:
        LockUnavailable: after `limit_s`.
    """
    if path in _alone or not system.has_shared_locks():
        yield 0.0
        return
    waiting = _Waiting(path, limit_s, on_wait)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(_Unusable), waiting.turn():
            held.enter_context(waiting.shares(shared=True))
        yield waiting.waited_s


class _Unusable(LockUnavailable):
    """The file of the lock cannot be opened."""


class _Waiting:
    """One wait for the lock's two files, within one limit."""

    def __init__(self, path: Path, limit_s: float, on_wait: Callable[[float], None]) -> None:
        self._path, self._limit_s, self._on_wait = path, limit_s, on_wait
        self._start = time.monotonic()

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The first file, exclusively: filelock has no shared lock that users of several accounts can take."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._path, mode=0o666)  # jobs of other users wait, too
        while True:
            try:
                lock.acquire(timeout=_ASK_AGAIN_S, poll_interval=_POLL_S)
                break
            except Timeout:
                self._again("timing")
            except OSError as error:
                raise self._unusable(error) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def shares(self, *, shared: bool) -> Iterator[None]:
        """The second file."""
        if not system.has_shared_locks():
            yield
            return
        file = self._path.with_name(f"{self._path.name}-shares")
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | system.NO_LINK, 0o666)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            with contextlib.suppress(OSError):  # another user's, who has done the same
                os.fchmod(descriptor, 0o666)
            asked = time.monotonic()
            while not system.try_lock(descriptor, shared=shared):
                time.sleep(_POLL_S)
                if time.monotonic() - asked >= _ASK_AGAIN_S:
                    asked = time.monotonic()
                    self._again("preparing")
            try:
                yield
            finally:
                system.unlock(descriptor)  # also of processes that have been forked meanwhile
        finally:
            os.close(descriptor)

    def _again(self, doing: str) -> None:
        self._on_wait(self.waited_s)
        if self.waited_s >= self._limit_s:
            raise LockUnavailable(
                f"others on this machine have been {doing} for {self.waited_s:.0f} s: they hold {self._path}; run "
                "fewer jobs at a time"
            )

    def _unusable(self, error: OSError) -> _Unusable:
        return _Unusable(f"the file that keeps timings apart cannot be used: {self._path}: {error}")
