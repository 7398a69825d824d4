"""Files of head that git does not track: a base that fails without them is healthy, and its check is not."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pytest_modelopt.baseline.base_tree import BaseTree
from pytest_modelopt.baseline.git import ask
from pytest_modelopt.measuring.installation import INSTALLED

_ENVIRONMENT = "pyvenv.cfg"
_OF_NOBODY = (*INSTALLED, "__pycache__", "node_modules")


@contextlib.contextmanager
def with_heads_untracked(tree: BaseTree) -> Iterator[Path | None]:
    """A copy of the base's tree in which links lead to what head has and git does not track; None where head has no
    such file, or it cannot be made. A copy: other processes of the run measure in the tree itself."""
    place = tree.folder.parents[1] / f"trial-{secrets.token_hex(6)}"
    try:
        yield _made(tree, place / tree.folder.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _made(tree: BaseTree, folder: Path) -> Path | None:
    names = _untracked(tree)
    if not names:
        return None
    try:
        shutil.copytree(tree.folder, folder, symlinks=True)
        for name in names:
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(tree.repository / name)
    except (OSError, shutil.Error):
        return None
    return folder


def _untracked(tree: BaseTree) -> list[str]:
    """What head has, git does not track, and the base's tree has not. A repository inside of head is one entry."""
    paths = [os.fsdecode(item).rstrip("/") for item in ask(tree.repository, "ls-files", "--others", "-z").items]
    environments = [PurePosixPath(path).parent for path in paths if PurePosixPath(path).name == _ENVIRONMENT]
    return [
        path
        for path in paths
        if not any(part in _OF_NOBODY for part in PurePosixPath(path).parts)
        and not any(PurePosixPath(path).is_relative_to(folder) for folder in environments)
        and not any(os.path.lexists(tree.folder / each) for each in (path, *_files_above(tree, path)))
    ]


def _files_above(tree: BaseTree, path: str) -> list[str]:
    """Parents of a path that are no folders at the base, so that nothing can be put into them."""
    parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
    return [parent for parent in parents if not (tree.folder / parent).is_dir()]


def is_tracked(tree: BaseTree, path: Path) -> bool:
    """Whether head has the file in a commit or in its index: then the base's own code did without it."""
    return ask(tree.repository, "ls-files", "--error-unmatch", "--", str(path)).is_ok


def is_ignored(tree: BaseTree, path: Path) -> bool:
    """Whether git ignores a path of the base's tree there."""
    return ask(tree.folder, "check-ignore", "--quiet", "--", str(path)).is_ok
