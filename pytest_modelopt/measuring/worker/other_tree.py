"""Another revision in its worker: whatever would come from head's files comes from that revision's tree instead.

What leads to head all the same is noticed: a base that runs head's code, or reads head's weights, would be head.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pytest_modelopt.measuring.installation import INSTALLED, LIBRARY, OUR_FOLDER
from pytest_modelopt.measuring.variant import SourceTree
from pytest_modelopt.measuring.worker.watches import opened_files

_REDIRECTIONS = ("MAPPING", "_redirections", "known_source_files")
"""What finders of editable installations keep, in their module or in themselves: names of modules and their places
(setuptools; hatchling, pdm and others that use `editables`; scikit-build-core)."""


def enter(tree: SourceTree) -> None:
    """Point every way by which Python finds head's modules to the other tree: the path, the environment variables that
    name folders of head, and editable installations. From now on it is known which files are opened."""
    sys.path[:] = list(dict.fromkeys(there for entry in sys.path for there in _entries(entry, tree)))
    sys.path_importer_cache.clear()
    for name, value in list(os.environ.items()):
        if name != "HOME":  # where caches are: the tree has none
            parts = value.split(os.pathsep)
            os.environ[name] = os.pathsep.join(_existing_in_tree(part, tree) for part in parts)
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        for places in (getattr(of, name, None) for name in _REDIRECTIONS for of in (finder, module)):
            if isinstance(places, dict):
                places.update({name: in_tree(at, tree) for name, at in places.items() if isinstance(at, str)})
        namespaces = getattr(module, "NAMESPACES", None)  # setuptools, too
        if isinstance(namespaces, dict):
            namespaces.update({name: [in_tree(at, tree) for at in places] for name, places in namespaces.items()})
    if tree.is_watched:
        opened_files.watch()


def in_tree(path: str, tree: SourceTree) -> str:
    """The place in the other tree of a path in head's; any other path, also of an environment in there, as it is."""
    _real_folder.cache_clear()
    return _in_tree(path, tree)


def _in_tree(path: str, tree: SourceTree) -> str:
    inside = _inside(Path(path), tree) if path else None
    return path if inside is None else str(Path(tree.folder, inside))


def taken_from_head(tree: SourceTree) -> tuple[str, ...]:
    """Modules and files of head that were used though the other tree has its own: 'shop.models (/project/shop.py)'.

    A file that only head has, such as a data set that git ignores, is nobody's revision. What was installed as a copy
    of head's folder is head's, too.
    """
    _real_folder.cache_clear()
    copies = _installed_copies(tree)
    modules = {
        f"{name} ({file})": None
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str)
        and os.path.isabs(file)  # noqa: PTH117 -- that of `torch.ops` is just '_ops.py'
        and (_inside(Path(file), tree) or _real(file) in copies)
    }
    files = [
        file
        for file in (*opened_files.noted(), *opened_files.mapped())
        if _existing_in_tree(_source_of(file), tree) != file
    ]
    known = (*dict.fromkeys(map(_source_of, files)),)
    found = (file for file in known if _existing_in_tree(file, tree) != file)
    return (*sorted(modules), *(file for file in found if not any(f"({file})" in module for module in modules)))


def linked_to_head(tree: SourceTree) -> tuple[str, ...]:
    """Files of head to which links in the other tree lead, and which were used: relative to the top, sorted."""
    modules = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    top, found = os.path.realpath(tree.head), set()
    for file in (*opened_files.noted(), *opened_files.mapped(), *filter(None, modules)):
        real = os.path.realpath(_source_of(file))
        if Path(real).is_relative_to(top) and Path(tree.folder, inside := os.path.relpath(real, top)).is_symlink():
            found.add(inside)
    return tuple(sorted(found))


def _entries(entry: str, tree: SourceTree) -> Iterator[str]:
    """What takes the place of an entry of `sys.path`. Head's top folder may be a package itself, found in the folder
    that holds it; whatever else lies there is still found."""
    if entry and Path(entry).resolve() == Path(tree.head).resolve().parent:
        yield str(Path(tree.folder).parent)
    yield in_tree(entry, tree)


def _existing_in_tree(path: str, tree: SourceTree) -> str:
    there = _in_tree(path, tree) if os.path.isabs(path) else path  # noqa: PTH117
    return there if Path(there).exists() else path


def _installed_copies(tree: SourceTree) -> set[str]:
    """Files of packages that were installed from head's folder, and not as editable: `pip install .` copies them."""
    found: set[str] = set()
    for package in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # of a package that is half installed
            source = json.loads(package.read_text("direct_url.json") or "{}")
            place, is_editable = urlsplit(source.get("url", "")), source.get("dir_info", {}).get("editable", False)
            if place.scheme == "file" and not is_editable and _inside(Path(unquote(place.path)), tree) is not None:
                found.update(os.path.realpath(str(package.locate_file(file))) for file in package.files or ())
    return found


# --- files -----------------------------------------------------------------------------------------------------------


def _source_of(file: str) -> str:
    """Of a cached module its source."""
    if not file.endswith(".pyc"):
        return file
    with contextlib.suppress(ValueError, NotImplementedError):
        return importlib.util.source_from_cache(file)
    return file


# --- what is head's --------------------------------------------------------------------------------------------------


def _inside(path: Path, tree: SourceTree) -> Path | None:
    """The path relative to head's tree; None for one outside of it, or of an environment that lies in its folder."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 -- links stay as they are named
    named = _below(whole, Path(tree.head))
    if named is not None:
        return named
    real = _below(Path(_real(str(whole))), Path(_real_folder(tree.head)))
    # A package that is installed as a link to head's folder is head's; a cache in there that links lead to is not.
    return None if real is not None and _is_installed(whole) and not Path(tree.folder, real).exists() else real


def _real(path: str) -> str:
    """What `os.path.realpath` says of an absolute path. Thousands of modules lie in a few hundred folders."""
    folder, name = os.path.split(path)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(_real_folder(folder), name)  # noqa: PTH114, PTH118


@functools.cache
def _real_folder(path: str) -> str:
    """Known until another module asks again: folders may become links meanwhile."""
    return os.path.realpath(path)


def _below(path: Path, top: Path) -> Path | None:
    """Relative to head's top folder, which may itself lie in an environment, as below /usr or in one made right there;
    None for what lies elsewhere, or is installed in there."""
    if not path.is_relative_to(top) or _is_installed(path.relative_to(top)):
        return None
    environments = [Path(sys.prefix), Path(sys.base_prefix), *LIBRARY, OUR_FOLDER]
    inner = (place for place in environments if place != top and not top.is_relative_to(place))
    return None if any(path.is_relative_to(place) for place in inner) else path.relative_to(top)


def _is_installed(path: Path) -> bool:
    return any(part in INSTALLED for part in path.parts)
