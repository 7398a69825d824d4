"""The project as it travels: a folder of its small files, and the large ones (weights, data) by their content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pytest_modelopt.results.files.file_sums import sha256_of

_LARGE_BYTES = 4 * 1024**2
"""A file from here on travels by itself, once for each machine that needs it."""
_NEVER = frozenset({"__pycache__", ".git", ".hg", ".svn", "node_modules", ".tox", ".nox", ".eggs"})
_CACHES = ("*_cache", ".hypothesis", ".coverage*", "*.pyc")
MANIFEST = ".pytest-modelopt-files.json"
"""In the folder that travels: the large files and their SHA-256."""


class ProjectError(ValueError):
    """Why the project cannot travel, and what to do."""


@dataclass(frozen=True)
class Project:
    """Files below `root`, by their paths there."""

    root: Path
    small: Mapping[str, str]
    """Path and SHA-256."""
    large: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of all paths and contents."""
        return hashlib.sha256(json.dumps([dict(self.small), dict(self.large)], sort_keys=True).encode()).hexdigest()

    def stage(self, folder: Path) -> None:
        """Copy the small files into the folder, with the list of the large ones."""
        for path in self.small:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / path, target)
        (folder / MANIFEST).write_text(json.dumps(dict(self.large), sort_keys=True), encoding="utf-8")


def read_project(root: Path, excluded: Sequence[str] = ()) -> Project:
    """All files of the project but version control, environments, caches, and what matches a pattern of `excluded`.

    Files that git ignores travel, too: weights often are among them.

    Raises:
        ProjectError: for a link that leads nowhere, or out of the folder, which would be broken elsewhere.
    """
    small: dict[str, str] = {}
    large: dict[str, str] = {}
    for path in sorted(_files(root, excluded)):
        file = root / path
        if _leads_out(file, root):
            raise ProjectError(
                f"{path} is a link out of {root}, to {file.resolve()}, which other machines do not have: copy the file "
                "into the project, or leave it out by the ini key modelopt_fleet_exclude"
            )
        if not file.exists():
            raise ProjectError(f"{path} leads nowhere: remove the link, or mend it")
        of_size = large if file.stat().st_size >= _LARGE_BYTES else small
        of_size[path] = sha256_of(file)
    return Project(root, small, large)


def place(root: Path, content: Callable[[str], bytes]) -> None:
    """Put the large files of a project that has arrived at `root` where they belong; `content` gives them by SHA-256.

    Raises:
        ProjectError: for content that is not what its name says.
    """
    from filelock import FileLock

    wanted: dict[str, str] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    with FileLock(root / f"{MANIFEST}.lock"):  # jobs of one machine share the folder
        for path, digest in wanted.items():
            file = root / path
            if file.exists():
                continue
            data = content(digest)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ProjectError(f"{path} has arrived damaged: run again")
            file.parent.mkdir(parents=True, exist_ok=True)
            arriving = file.with_name(f"{file.name}.arriving")
            arriving.write_bytes(data)
            arriving.replace(file)


def _files(root: Path, excluded: Sequence[str]) -> Iterator[str]:
    """Paths below `root`; those behind a link to a folder, too, as if they lay there."""
    for name, folders, files in os.walk(root, followlinks=True):
        here = Path(name)

        def travels(each: str, here: Path = here) -> bool:
            path, file = (here / each).relative_to(root).as_posix(), here / each
            is_left_out = each in _NEVER or any(fnmatch(each, one) for one in _CACHES)
            if is_left_out or any(fnmatch(path, one.rstrip("/")) for one in excluded):
                return False
            return not (file / "pyvenv.cfg").exists() and not (file.is_symlink() and _is_within(here, file.resolve()))

        folders[:] = filter(travels, folders)
        for each in [*files, *(one for one in folders if _leads_out(here / one, root))]:
            if travels(each) and ((here / each).is_file() or (here / each).is_symlink()):
                yield (here / each).relative_to(root).as_posix()


def _is_within(folder: Path, other: Path) -> bool:
    """Whether following a link to `other` from `folder` would never end."""
    return folder.resolve().is_relative_to(other)


def _leads_out(path: Path, root: Path) -> bool:
    return not path.resolve().is_relative_to(root.resolve())
