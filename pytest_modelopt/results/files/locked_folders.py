"""Temporary folders that are held by a lock as long as their process lives, so that what a killed one left is known.

Each has a file beside it whose lock is the kernel's and is taken before the folder is made: a folder whose lock is
free belongs to a process that was killed. Folders of worktrees need git to be removed (`baseline/worktrees.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt import system

if TYPE_CHECKING:
    from filelock import BaseFileLock

PREFIX = "pytest-modelopt-"
_NAME = re.compile(re.escape(PREFIX) + "(run|s)-[0-9a-f]{12}")
_LOCK = ".lock"
_open: dict[Path, HeldFolder] = {}
"""By folder, those of this process."""


@dataclass
class HeldFolder:
    """A private folder. It is removed by `remove`, at the latest when its process ends."""

    path: Path
    _lock: BaseFileLock | None
    """None where the file system knows no locks: then nobody can tell that it was left."""
    _owner: int = field(default_factory=os.getpid)

    def remove(self) -> None:
        """A second call does nothing, and so does one in a forked process. Never raises."""
        if _open.get(self.path) is not self or os.getpid() != self._owner:
            return
        del _open[self.path]
        remove_tree(self.path)
        if self._lock is not None:
            release(self.path, self._lock)


def hold(kind: str = "run", parent: Path | None = None) -> HeldFolder:
    """A new folder in `parent`, or else in the system's temporary folder. `kind` is 'run', or 's' for sockets.

    Raises:
        OSError: it cannot be made there.
    """
    path = (parent or Path(tempfile.gettempdir())) / f"{PREFIX}{kind}-{secrets.token_hex(6)}"
    lock = take(path)
    try:
        path.mkdir(mode=0o700)
    except OSError:
        if lock is not None:
            release(path, lock)
        raise
    atexit.unregister(_remove_all)
    atexit.register(_remove_all)
    _open[path] = HeldFolder(path, lock)
    return _open[path]


@contextlib.contextmanager
def held_folder() -> Iterator[Path]:
    """A folder for as long as the block runs, or its process lives."""
    folder = hold()
    try:
        yield folder.path
    finally:
        folder.remove()


def clear_abandoned() -> None:
    """Remove what processes of this user that were killed have left in the temporary folders. Never raises."""
    for parent in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):
        with contextlib.suppress(OSError):
            for path in parent.glob(f"{PREFIX}*"):
                if _NAME.fullmatch(path.name) and path not in _open:
                    with contextlib.suppress(OSError), abandoned(path):
                        remove_tree(path)


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[None]:
    """Hold the lock of a folder whose process is gone. Raises OSError where it is not, or where it is not ours."""
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or path.stat().st_uid != system.user()):
        raise PermissionError(f"{path} is not ours")
    lock = take(path)
    if lock is None:
        raise BlockingIOError(f"{path} is in use")
    try:
        yield
    finally:
        release(path, lock)


def take(path: Path) -> BaseFileLock | None:
    """The lock of a folder, or None where another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(lock_of(path), mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError):
        return None
    return lock


def release(path: Path, lock: BaseFileLock) -> None:
    with contextlib.suppress(OSError):
        lock_of(path).unlink()
    with contextlib.suppress(OSError):
        lock.release()


def lock_of(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def remove_tree(path: Path) -> None:
    """Remove a folder, also where the code that ran in there has made folders that cannot be written to."""
    shutil.rmtree(path, ignore_errors=True)
    if path.is_dir():
        for place, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(place).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)


def _remove_all() -> None:
    for folder in list(_open.values()):
        folder.remove()
