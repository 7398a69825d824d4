"""Functions by name before anything is imported: whether one is certain not to be found, as far as files tell."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_DYNAMIC = re.compile(
    r"import \*|__getattr__|globals\(|locals\(|vars\(|exec\(|setattr\(|__dict__|sys\.modules|__path__"
)
"""What gives a module names that do not stand in it."""
_CHANGES_PATHS = re.compile(r"sys\.path|addsitedir|syspath_prepend")
_COLLECTED = re.compile(r"(?:conftest|test_.*|.*_test)\.py")
_MOST_FILES = 20_000


@dataclass(frozen=True)
class Missing:
    """Why a run cannot find the function, or may not find it where `is_certain` is False; and the way out."""

    why: str
    is_certain: bool = True


def missing(name: str, folder: Path, root: Path, *, called: bool) -> Missing | None:
    """Why `package.module:function` is not found by a run whose budgets file lies in `folder`, below `root`.

    None where it is found, and where nobody can tell. `called`: it is called without arguments.
    """
    importlib.invalidate_caches()
    module, _, attribute = name.partition(":")
    path: Sequence[str] | None = [str(folder), *(entry or str(Path.cwd()) for entry in sys.path)]
    spec = None
    for depth, part in enumerate(parts := module.split("."), start=1):
        whole = ".".join(parts[:depth])
        spec = _spec(whole, path)
        if spec is None:
            return _no_module(whole, folder, root) if depth == 1 else _no_submodule(part, whole, path)
        path = spec.submodule_search_locations
        if path is None and depth < len(parts):
            return Missing(f"`{whole}` is a module, and holds no `{parts[depth]}`")
    source = _source(spec)
    first, _, inner = attribute.partition(".")
    return None if source is None else _lacks(source, module, first, called=called and not inner)


def in_src(module: str, folder: Path) -> str:
    """The way out where the module lies in a src/ layout that is not on the path; else empty."""
    top = module.partition(".")[0]
    for place in dict.fromkeys((folder, Path.cwd())):
        found = (place / "src" / top, place / "src" / f"{top}.py")
        if any(path.exists() for path in found) and str(place / "src") not in sys.path:
            return (
                f"; {top} lies in {place / 'src'}: set `pythonpath = src` in pytest's ini file, or install the project"
            )
    return ""


def _spec(whole: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """By the finders of this process, without importing the packages above it."""
    found = importlib.machinery.PathFinder.find_spec(whole, path)
    for finder in sys.meta_path:
        if found is None and finder is not importlib.machinery.PathFinder:
            found = finder.find_spec(whole, path if "." in whole else None)
    return found


def _no_module(module: str, folder: Path, root: Path) -> Missing | None:
    lies_in_src = in_src(module, folder)
    why = f"there is no module `{module}` (looked first in {folder}){lies_in_src}"
    for file in _files(root):
        if file is None:
            return None
        elsewhere = module in (file.stem, file.parent.name) and file.suffix == ".py"
        changes_paths = _COLLECTED.fullmatch(file.name) and _CHANGES_PATHS.search(_text(file))
        if elsewhere or changes_paths:
            return Missing(why, is_certain=False) if lies_in_src else None
    return Missing(why)


def _files(root: Path) -> Iterator[Path | None]:
    """Python files below `root`, but for hidden folders and environments; None at the end where there are too many."""
    count = 0
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        for name in names:
            if name.endswith(".py"):
                count += 1
                yield Path(folder, name)
        if count > _MOST_FILES:
            yield None
            return


def _no_submodule(part: str, whole: str, path: Sequence[str] | None) -> Missing | None:
    package = whole.rpartition(".")[0]
    inits = [init for folder in path or () if (init := Path(folder, "__init__.py")).is_file()]
    if not inits or any(_DYNAMIC.search(_text(init)) for init in inits):
        return None  # a package without that file may have other parts, in folders that a test puts on the path
    return Missing(f"the package `{package}` has no module `{part}`")


def _source(spec: importlib.machinery.ModuleSpec | None) -> Path | None:
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _lacks(source: Path, module: str, name: str, *, called: bool) -> Missing | None:
    try:
        text = importlib.util.decode_source(source.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError):  # of a coding of its own, too
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        return Missing(f"`{module}` cannot be imported: {source}:{error.lineno}: {error.msg}")
    except (ValueError, RecursionError, MemoryError):
        return None
    if not re.search(rf"\b{name}\b", text):
        is_submodule = any((source.parent / part).exists() for part in (name, f"{name}.py"))
        if _DYNAMIC.search(text) or is_submodule:
            return None
        near = difflib.get_close_matches(name, _defined(tree), n=1)
        return Missing(f"`{module}` has no `{name}`{f'; did you mean `{near[0]}`?' if near else ''}")
    return _needs_arguments(tree, name) if called else None


def _defined(tree: ast.Module) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _needs_arguments(tree: ast.Module, name: str) -> Missing | None:
    """Of a plain function that is bound by one `def` only."""
    bound = [node for node in ast.walk(tree) if name in _bindings(node)]
    if len(bound) != 1 or not isinstance(bound[0], ast.FunctionDef) or bound[0] not in tree.body:
        return None
    function = bound[0]
    if function.decorator_list:
        return None
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = positional[: len(positional) - len(given.defaults)]
    required += [each for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    if not required:
        return None
    names = ", ".join(each.arg for each in required)
    return Missing(f"it needs arguments ({names}), and is called without any: give each a default")


def _bindings(node: ast.AST) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return {node.id}
    if isinstance(node, ast.alias):
        return {node.asname or node.name}
    return set(node.names) if isinstance(node, (ast.Global, ast.Nonlocal)) else set()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
