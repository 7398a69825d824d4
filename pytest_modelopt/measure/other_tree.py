"""Another revision in its worker: whatever would come from head's files comes from that revision's tree instead.

What leads to head all the same is noticed: a base that runs head's code, or reads head's weights, would be head.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_modelopt.measure.variant import SourceTree

_OUR_FOLDER = Path(__file__).parents[1]
_INSTALLED = ("site-packages", "dist-packages")
_opened: dict[str, None] = {}
"""Files that were opened in this process, in order: it runs one variant."""


def enter(tree: SourceTree) -> None:
    """Point every way by which Python finds head's modules to the other tree: the path, the environment variables that
    name folders of head, and editable installations. From now on it is known which files are opened."""
    sys.path[:] = list(dict.fromkeys(in_tree(entry, tree) for entry in sys.path))
    sys.path_importer_cache.clear()
    for name, value in list(os.environ.items()):
        parts = value.split(os.pathsep)
        os.environ[name] = os.pathsep.join(_existing_in_tree(part, tree) for part in parts)
    for finder in sys.meta_path:
        # setuptools' editable installations: the finder's module maps the names of packages to their folders.
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            mapping.update({package: in_tree(folder, tree) for package, folder in mapping.items()})
    builtins.open = io.open = _noted(builtins.open)


def in_tree(path: str, tree: SourceTree) -> str:
    """The place in the other tree of a path in head's; any other path, also of an environment in there, as it is."""
    inside = _inside(Path(path), tree) if path else None
    return path if inside is None else str(Path(tree.folder, inside))


def taken_from_head(tree: SourceTree) -> tuple[str, ...]:
    """Modules and files of head that were used though the other tree has its own: 'shop.models (/work/shop.py)'.

    A file that only head has, such as a data set that git ignores, is nobody's revision.
    """
    modules = {
        f"{name} ({file})": None
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str) and _inside(Path(file), tree)
    }
    files = [file for file in _opened if _existing_in_tree(file, tree) != file]
    return (*sorted(modules), *(file for file in files if not any(f"({file})" in module for module in modules)))


def _existing_in_tree(path: str, tree: SourceTree) -> str:
    there = in_tree(path, tree) if os.path.isabs(path) else path  # noqa: PTH117
    return there if Path(there).exists() else path


def _noted(function: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(TypeError, ValueError):  # a number of an open file, or nothing that can be opened
            _opened.setdefault(os.path.abspath(os.fsdecode(file)))  # noqa: PTH100
        return function(file, *args, **kwargs)

    return opened


def _inside(path: Path, tree: SourceTree) -> Path | None:
    """The path relative to head's tree; None for one outside of it, or of an environment that lies in its folder."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 -- links stay as they are named
    installed = any(part in _INSTALLED for part in whole.parts) or whole.is_relative_to(_OUR_FOLDER)
    if installed or any(whole.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)):
        return None
    for named, top in ((whole, Path(tree.head)), (whole.resolve(), Path(tree.head).resolve())):
        if named.is_relative_to(top):
            return named.relative_to(top)
    return None
