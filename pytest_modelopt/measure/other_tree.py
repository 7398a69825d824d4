"""Another revision in its worker: what head's files would give is imported from that revision's tree instead."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pytest_modelopt.measure.variant import SourceTree

_OURS = "pytest_modelopt"
_INSTALLED = ("site-packages", "dist-packages")
_PATHS_IN_ENVIRONMENT = ("PYTHONPATH",)


def enter(tree: SourceTree) -> None:
    """Point every way by which Python finds head's modules to the other tree: the path, and editable installations."""
    sys.path[:] = list(dict.fromkeys(in_tree(entry, tree) for entry in sys.path))
    sys.path_importer_cache.clear()
    for name in _PATHS_IN_ENVIRONMENT:  # for processes that a model or its data starts
        if name in os.environ:
            os.environ[name] = os.pathsep.join(in_tree(entry, tree) for entry in os.environ[name].split(os.pathsep))
    for finder in sys.meta_path:
        # setuptools' editable installations: the finder's module maps the names of packages to their folders.
        mapping = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", None)
        if isinstance(mapping, dict):
            mapping.update({package: in_tree(folder, tree) for package, folder in mapping.items()})


def in_tree(path: str, tree: SourceTree) -> str:
    """The place in the other tree of a path in head's; any other path, also of an environment in there, as it is."""
    inside = _inside(Path(path), tree) if path else None
    return path if inside is None else str(Path(tree.folder, inside))


def modules_of_head(tree: SourceTree) -> tuple[str, ...]:
    """Modules that were imported from head's tree in spite of `enter`: 'shop.models (/work/shop/models.py)'."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] != _OURS and isinstance(file, str) and _inside(Path(file), tree):
            found.append(f"{name} ({file})")
    return tuple(sorted(found))


def _inside(path: Path, tree: SourceTree) -> Path | None:
    """The path relative to head's tree; None for one outside of it, or of an environment that lies in its folder."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 -- links stay as they are named
    installed = any(part in _INSTALLED for part in whole.parts)
    if installed or any(whole.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)):
        return None
    for named, top in ((whole, Path(tree.head)), (whole.resolve(), Path(tree.head).resolve())):
        if named.is_relative_to(top):
            return named.relative_to(top)
    return None
