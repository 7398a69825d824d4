"""Git worktrees of ours in the system's temporary folder, which are removed whatever becomes of the run.

Each run has one folder there, which it holds as `results/files/locked_folders.py` says.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.baseline.git import TreeError, ask, ask_with_filters
from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.files.locked_folders import abandoned, lock_of, release, remove_tree, take

if TYPE_CHECKING:
    from filelock import BaseFileLock

PREFIX = "pytest-modelopt-base-"
_NAME = re.compile(re.escape(PREFIX) + "[0-9a-f]{12}")
CHECKOUT_LIMIT_S = 1800.0
"""Of one checkout: filters may fetch gigabytes."""
_LISTED = "worktrees.json"
_ADD_TRIES = 3
_open: dict[Path, Container] = {}
"""By folder, those of this process."""


@dataclass
class Container:
    """The folder of one run, with the worktrees in its folder `tree`."""

    folder: Path
    _lock: BaseFileLock
    _owner: int = field(default_factory=os.getpid)
    _worktrees: list[tuple[Path, Path]] = field(default_factory=list)
    """(repository, worktree): a submodule has a repository of its own."""

    def add(self, repository: Path, worktree: Path, commit: str) -> None:
        """Check `commit` of `repository` out into the folder `worktree`, which is new or empty, inside this one.

        Where Git LFS fails, its pointers stay.

        Raises:
            TreeError: it cannot be checked out.
        """
        self._worktrees.append((repository, worktree))
        listed = [[str(path) for path in pair] for pair in self._worktrees]
        write_text(json.dumps(listed), self.folder / _LISTED)  # before git knows of it: nothing is ever forgotten
        for _ in range(_ADD_TRIES):  # another run's end may remove the folder that holds git's list meanwhile
            arguments = ("worktree", "add", "--detach", "--no-checkout", str(worktree), commit)
            answer = ask(repository, *arguments)
            if answer.is_ok:
                break
        else:
            raise TreeError(f"git cannot add a worktree of {repository} in {worktree}: {answer.why}")
        fill = ("reset", "--hard", "--quiet", "--no-recurse-submodules", commit)
        answer = ask_with_filters(worktree, *fill, limit_s=CHECKOUT_LIMIT_S)
        if not answer.is_ok:
            raise TreeError(f"git cannot check out {commit[:12]} of {repository} into {worktree}: {answer.why}")

    def remove(self) -> None:
        """Remove the worktrees and the folder. A second call does nothing, and so does one in a forked process."""
        if _open.get(self.folder) is not self or os.getpid() != self._owner:
            return
        _clear(self.folder, self._worktrees)
        del _open[self.folder]
        release(self.folder, self._lock)


def open_container(repository: Path) -> Container:
    """A new folder of this process, outside of `repository`. It is removed when the process ends.

    Raises:
        TreeError: there is no temporary folder outside of the repository that can be written to.
    """
    parent = _temporary_folder(repository)
    folder = parent / f"{PREFIX}{secrets.token_hex(6)}"
    try:
        lock = take(folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        lock_of(folder).unlink(missing_ok=True)
        raise TreeError(
            f"the base cannot be checked out into {parent}: {error}; set TMPDIR to a folder that can be written to"
        ) from None
    if lock is None:
        raise TreeError(
            f"the base cannot be checked out into {parent}: no file can be locked there; set TMPDIR to a "
            "folder where files can be locked"
        )
    atexit.unregister(_remove_all)
    atexit.register(_remove_all)
    _open[folder] = Container(folder, lock)
    return _open[folder]


def remove(worktree: Path) -> None:
    """Remove the container of `worktree`, where it is one of this process; otherwise do nothing. Never raises."""
    with contextlib.suppress(Exception):
        folder = _container_of(worktree)
        if folder in _open:
            _open[folder].remove()


def clear_stale(repository: Path) -> None:
    """Remove what runs that were killed have left: of `repository`, and of others in the same temporary folder.

    Only folders that bear our prefix and belong to this user, and whose lock is free. Never raises but TreeError where
    there is no git.
    """
    known: dict[Path, list[tuple[Path, Path]]] = {}
    for worktree in _registered(repository):
        known.setdefault(_container_of(worktree), []).append((repository, worktree))
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
            if _NAME.fullmatch(folder.name):  # not a lock without a folder: its run may be about to make it
                known.setdefault(folder, [])
    for folder, worktrees in known.items():
        with contextlib.suppress(OSError), _abandoned(folder):
            _clear(folder, [*worktrees, *_listed(folder)])


@contextlib.contextmanager
def _abandoned(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder whose run is gone. Raises OSError where it is not, or where it is not ours."""
    if not folder.parent.is_dir():  # with a TMPDIR of that run alone: nothing is left but git's entry
        yield
        return
    if folder in _open:
        raise BlockingIOError(f"{folder} is in use")
    with abandoned(folder):
        yield


def _registered(repository: Path) -> list[Path]:
    """The worktrees of ours that git lists for `repository`."""
    answer = ask(repository, "worktree", "list", "--porcelain", "-z")
    lines = answer.items
    if not answer.is_ok:  # git before 2.36 does not know -z
        lines = ask(repository, "worktree", "list", "--porcelain").output.split(b"\n")
    paths = [Path(os.fsdecode(line.removeprefix(b"worktree "))) for line in lines if line.startswith(b"worktree ")]
    return [path for path in paths if _container_of(path) != path]


def _container_of(worktree: Path) -> Path:
    """The container's folder that a worktree is in; itself where it is none of ours."""
    return next((folder for folder in worktree.parents if _NAME.fullmatch(folder.name)), worktree)


def _listed(folder: Path) -> list[tuple[Path, Path]]:
    """What the run that made `folder` wrote down of its worktrees."""
    try:
        pairs = json.loads((folder / _LISTED).read_text(encoding="utf-8"))
        return [(Path(repository), Path(worktree)) for repository, worktree in pairs]
    except (OSError, ValueError, TypeError):
        return []


def _clear(folder: Path, worktrees: list[tuple[Path, Path]]) -> None:
    """Remove a container, and each of its worktrees from its repository's list.

    Not `git worktree prune`, which also forgets a worktree of the user on a disk that is not mounted now.
    """
    for repository, worktree in reversed(worktrees):
        if worktree.is_relative_to(folder) and repository.is_dir():
            ask(repository, "worktree", "remove", "--force", "--force", str(worktree))
    remove_tree(folder)


def _temporary_folder(repository: Path) -> Path:
    """The system's temporary folder, or a usual one where that lies inside the repository (tox sets it so)."""
    asked = Path(tempfile.gettempdir()).resolve()
    for folder in (asked, Path("/tmp").resolve(), Path("/var/tmp").resolve()):
        if not folder.is_relative_to(repository) and folder.is_dir() and os.access(folder, os.W_OK):
            return folder
    raise TreeError(f"the temporary folder {asked} lies inside of {repository}: set TMPDIR to one outside of it")


def _remove_all() -> None:
    for container in list(_open.values()):
        with contextlib.suppress(Exception):
            container.remove()
