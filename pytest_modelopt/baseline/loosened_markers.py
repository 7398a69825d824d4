"""What a change loosened in the markers of tests, read from the source of the files that it touches.

Nothing of the base's tests is run. A marker is compared with that of the same function or class, or with one that came
and says the same; values that are no literals, nor constants of the same file, are compared by their text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_modelopt.baseline.loosened import loosened_limits
from pytest_modelopt.config.marker import parse_marker
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.results.base import Loosening
from pytest_modelopt.results.verdicts import Limit

_MARKER = "model_budget"
_ALL = "all limits"


@dataclass(frozen=True)
class _Mark:
    """One marker. `limits` is None where its values are not in the file."""

    where: str
    """'test_shop.py::TestReader::test_it'."""
    case: str | None
    limits: Mapping[str, Limit] | None
    text: str
    file: str
    line: int
    has_metric: bool
    """Whether the file speaks of a metric: then nobody knows here whether higher scores are better."""
    skip_marks: tuple[str, ...] = ()
    """Marks around it under which its test is skipped or may fail: 'pytest.mark.xfail'."""

    @property
    def is_collected(self) -> bool:
        """Whether pytest collects it as a test, by its default names."""
        return self.name.lower().startswith("test")

    @property
    def name(self) -> str:
        return self.where.rpartition("::")[2]

    def says_the_same(self, other: _Mark) -> bool:
        return self.text == other.text or (self.limits is not None and _values(self) == _values(other))


def loosened_marks(changed: tuple[str, ...], base: Path, head: Path, root: Path) -> tuple[Loosening, ...]:
    """Limits of markers in the `changed` files below `base` that are less strict, or gone, in those below `head`.

    Files are named relative to `root`, where they are inside.
    """
    paths = [path for path in changed if path.endswith(".py")]
    names = [_shown(head / path, root, path) for path in paths]
    before = [mark for path, name in zip(paths, names, strict=True) for mark in _marks(base / path, name)]
    after = [mark for path, name in zip(paths, names, strict=True) for mark in _marks(head / path, name)]
    found = [each for was, now in _paired(before, after) for each in _of_mark(was, now)]
    return tuple(sorted(found, key=lambda each: (each.case, each.limit, each.kind)))


def _paired(before: list[_Mark], after: list[_Mark]) -> Iterator[tuple[_Mark, _Mark | None]]:
    """Each marker of the base with head's: of the same function, in order, or else one that came and says the same."""
    left = list(after)
    lost = []
    for was in before:
        same = next((now for now in left if now.where == was.where), None)
        if same is None:
            lost.append(was)
            continue
        left.remove(same)
        yield was, same
    for was in lost:
        tests = [now for now in left if now.is_collected or not was.is_collected]
        alike = sorted(tests, key=lambda now: (now.name != was.name, not now.says_the_same(was)))
        same = next((now for now in alike if now.name == was.name or now.says_the_same(was)), None)
        if same is not None:
            left.remove(same)
        yield was, same


def _of_mark(was: _Mark, now: _Mark | None) -> Iterator[Loosening]:
    for mark in () if now is None else now.skip_marks:
        if mark not in was.skip_marks and now is not None:
            yield Loosening(now.where, _ALL, "waived", was.text, f"@{mark}", "", now.file, now.line)
    if now is None:
        names = list(was.limits) if was.limits else [_ALL]
        for name in names:
            old = was.limits[name].text if was.limits else was.text
            yield Loosening(was.where, name, "removed", old, "removed", "", was.file, 1)
    elif was.limits is None or now.limits is None:
        if not now.says_the_same(was):
            by = "which of them is stricter cannot be read from the source"
            yield Loosening(now.where, _ALL, "relaxed", was.text, now.text, by, now.file, now.line)
    else:
        if was.case is not None and now.case is None:
            yield Loosening(now.where, _ALL, "removed", was.case, "removed", "", now.file, now.line)
        direction = None if was.has_metric or now.has_metric else True
        yield from loosened_limits(now.where, was.limits, now.limits, direction, now.file, now.line)


def _shown(file: Path, root: Path, otherwise: str) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else otherwise


# --- what the source says --------------------------------------------------------------------------------------------


def _marks(file: Path, name: str) -> list[_Mark]:
    try:
        text = file.read_text(encoding="utf-8")
        if _MARKER not in text:
            return []
        module = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []
    constants = dict(_constants(module))
    found = _calls(module, name, _skip_marks(module))
    return [replace(_mark(call, where, name, constants, "metric" in text), skip_marks=by) for call, where, by in found]


def _calls(node: ast.AST, where: str, skip_marks: tuple[str, ...]) -> Iterator[tuple[ast.Call, str, tuple[str, ...]]]:
    """Every call of the marker with the function or class that it marks or stands in, and what spares its test."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        where, skip_marks = f"{where}::{node.name}", (*skip_marks, *_skip_marks(node))
    if isinstance(node, ast.Call) and _MARKER in (getattr(node.func, "attr", ""), getattr(node.func, "id", "")):
        yield node, where, skip_marks
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, where, skip_marks)


def _skip_marks(node: ast.AST) -> tuple[str, ...]:
    """The marks `skip`, `skipif` and `xfail` on a function or a class, or in its `pytestmark`, without arguments."""
    marks: list[ast.expr] = list(getattr(node, "decorator_list", []))
    for statement in node.body if isinstance(node, (ast.Module, ast.ClassDef)) else ():
        names = [getattr(target, "id", "") for target in getattr(statement, "targets", [])]
        if isinstance(statement, ast.Assign) and "pytestmark" in names:
            value = statement.value
            marks += value.elts if isinstance(value, (ast.List, ast.Tuple)) else [value]
    plain = [mark.func if isinstance(mark, ast.Call) else mark for mark in marks]
    return tuple(ast.unparse(mark) for mark in plain if getattr(mark, "attr", "") in ("skip", "skipif", "xfail"))


def _constants(module: ast.Module) -> Iterator[tuple[str, object]]:
    for statement in module.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                try:
                    yield target.id, ast.literal_eval(statement.value)
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    continue


def _mark(call: ast.Call, where: str, name: str, constants: Mapping[str, object], has_metric: bool) -> _Mark:
    text = ast.unparse(call)
    try:
        given = tuple(_value(each, constants) for each in call.args)
        named = {str(each.arg): _value(each.value, constants) for each in call.keywords}
        stated = parse_marker(given, named, file=name, line=call.lineno)
    except (BudgetsError, ValueError, TypeError, SyntaxError, RecursionError):
        return _Mark(where, None, None, text, name, call.lineno, has_metric)
    limits = {limit.name: limit for limit in stated.limits}
    return _Mark(where, stated.case, limits, text, name, call.lineno, has_metric)


def _value(node: ast.expr, constants: Mapping[str, object]) -> object:
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    value: object = ast.literal_eval(node)
    return value


def _values(mark: _Mark) -> tuple[object, ...]:
    limits = mark.limits or {}
    return (mark.case, *((name, limits[name].value, limits[name].level) for name in sorted(limits)))
