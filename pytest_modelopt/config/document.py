"""YAML in, plain data out, with the line of every key: what a budgets file says before anybody asks what it means."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.config.schema import Location
from pytest_modelopt.config.sharing import expand
from pytest_modelopt.limits.spelling import printable, shown

_MOST_NODES = 10_000
_MOST_BYTES = 1_000_000
_DEEPEST = 50


@dataclass
class Document:
    """The plain data of a file, and for each location in it the line and the text as written."""

    file: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    texts: dict[Location, str] = field(default_factory=dict)
    source: str = ""
    """The whole file, without a byte order mark."""
    spans: dict[Location, tuple[int, int]] = field(default_factory=dict)
    """Where in `source` each plain value stands, first character and end; an alias's is where its anchor is."""
    unreadable: set[Location] = field(default_factory=set)
    """Where a problem is already reported, so that the missing value is not reported again."""
    problems: list[Problem] = field(default_factory=list)
    from_root: str = ""
    """The file's path from the root of the project, absolute where it lies outside."""
    patterns: dict[str, Any] = field(default_factory=dict)
    """What `models:` states below patterns of names."""
    origins: dict[Location, Location] = field(default_factory=dict)
    """Of what models share: where it is stated that stands at a location."""

    def problem(self, location: Location, message: str) -> Problem:
        return Problem(self.file, self.line(location), message)

    def stated_at(self, location: Location) -> Location:
        """Where it is stated, if it is one of the values that models share."""
        for depth in range(len(location), 0, -1):
            if location[:depth] in self.origins:
                return (*self.origins[location[:depth]], *location[depth:])
        return location

    def line(self, location: Location) -> int:
        """The line of the nearest thing around the location that the file really contains."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_document(path: Path, file: str, from_root: str = "") -> Document:
    """The file, in which each model states what it shares with others (`sharing.py`). Raises BudgetsError."""
    source = _text(path, file)
    node = _compose(source, file)
    if node is None or node.tag == f"{_TAG}null" or (isinstance(node, yaml.ScalarNode) and not node.value.strip()):
        raise BudgetsError([Problem(file, 1, "the file is empty; begin with `version: 1`")])
    document = Document(file, source=source, from_root=from_root or file)
    document.data = _Walk(document).value(node, ())
    if not isinstance(document.data, dict):
        message = f"the file must be a mapping that begins with `version: 1`, not {shown(document.data)}"
        raise BudgetsError([*document.problems, Problem(file, document.line(()), message)])
    expand(document)
    return document


def _compose(text: str, file: str) -> yaml.Node | None:
    try:
        loader = yaml.SafeLoader(text)
        try:
            node: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the file contains the invisible character {chr(error.character)!r}; remove it"
        raise BudgetsError([Problem(file, line, message)]) from None
    except yaml.MarkedYAMLError as error:
        raise BudgetsError([_yaml_problem(file, error)]) from None
    except RecursionError:
        raise BudgetsError([Problem(file, 1, _too_deep())]) from None
    except (ValueError, OverflowError):  # PyYAML lets these through, for example for the escape \UFFFFFFFF
        message = "the file is not valid YAML: it contains a number or an escape (`\\U...`) that is too large"
        raise BudgetsError([Problem(file, 1, message)]) from None
    return node


def _text(path: Path, file: str) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise BudgetsError([Problem(file, 1, message)]) from None
    if len(raw) > _MOST_BYTES:
        raise BudgetsError([Problem(file, 1, f"the file is larger than {_MOST_BYTES} bytes; is it the right file?")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8 text (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        raise BudgetsError([Problem(file, line, message)]) from None


_YAML_HINTS = {
    "mapping values are not allowed here": "check the indentation, and put quotes around text that contains `: `",
    "found character '\\t' that cannot start any token": "indent with blanks, not with tabs",
    "found character '@' that cannot start any token": "put quotes around text that begins with `@`",
    "found character '`' that cannot start any token": "put quotes around text that begins with a backtick",
    "expected ',' or '}', but got": "close the bracket, and put quotes around text that contains `: `, ` #` or `,`",
    "expected ',' or ']', but got": "close the bracket, and put quotes around text that contains `: `, ` #` or `,`",
    "could not find expected ':'": "a key needs a `:` after it",
    "but found another document": "keep one document, without a second `---`",
    "found undefined alias": "an alias `*name` needs an anchor `&name` above it",
}


def _yaml_problem(file: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    found = printable(error.problem or error.context or "it cannot be read")
    hint = next((hint for beginning, hint in _YAML_HINTS.items() if found.startswith(beginning)), None)
    where = f" in column {mark.column + 1}" if mark else ""
    if found.startswith("expected ',' or") and error.context_mark and mark and error.context_mark.line < mark.line:
        where += f" (the bracket opens in line {error.context_mark.line + 1})"
    message = f"the file is not valid YAML: {found}{where}{f'; {hint}' if hint else ''}"
    return Problem(file, mark.line + 1 if mark else 1, message)


def _too_deep() -> str:
    return f"the file is nested more than {_DEEPEST} levels deep; is a bracket never closed?"


_TAG = "tag:yaml.org,2002:"
_PLAIN_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_LONGEST_INTEGER = 18


class _Walk:
    """From YAML nodes to plain data. Nothing is constructed from tags, so no file can run code or guess at types."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[int] = []
        self._nodes = 0

    def value(self, node: yaml.Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        self._document.lines.setdefault(location, line)
        self._count(line)
        if len(location) > _DEEPEST:
            self._stop(line, _too_deep())
        if id(node) in self._open:
            self._stop(line, "this alias contains itself; write its content out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        self._open.append(id(node))
        try:
            return self._collection(node, location)
        finally:
            self._open.pop()

    def _count(self, line: int) -> None:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            self._stop(line, f"the file has more than {_MOST_NODES} values, aliases included; is it the right file?")

    def _collection(self, node: yaml.Node, location: Location) -> Any:
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            return self._refuse(node, location, _unknown_tag(node))
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(value, (*location, key)) for key, value in self._pairs(node, location)}
        return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]

    def _pairs(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, yaml.Node]]:
        """Keys and value nodes: the mapping's own, then merged ones (`<<`) that it does not state itself."""
        first_lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            key = self._key(key_node)
            if key is None:
                continue
            line = key_node.start_mark.line + 1
            if key in first_lines:
                message = f"the key {shown(key)} is written twice, first in line {first_lines[key]}; keep one of them"
                self._document.problems.append(Problem(self._document.file, line, message))
                continue
            first_lines[key] = line
            own: Location = (*location, key)
            self._document.lines[own] = line
            yield key, value
        yield from self._merged(merged, first_lines, location)

    def _merged(
        self, nodes: list[yaml.Node], known: dict[str, int], location: Location
    ) -> Iterator[tuple[str, yaml.Node]]:
        for node in nodes:
            self._count(node.start_mark.line + 1)
            if not isinstance(node, yaml.MappingNode):
                self._refuse(node, location, "`<<` takes a mapping, or a list of mappings, for example `<<: *common`")
                continue
            if id(node) in self._open or len(self._open) > _DEEPEST:
                self._stop(node.start_mark.line + 1, "this alias contains itself; write its content out")
            self._open.append(id(node))
            for key, value in self._pairs(node, (*location, "<<")):
                there: Location = (*location, "<<", key)
                here: Location = (*location, key)
                line = self._document.lines.pop(there)
                if key not in known:
                    known[key] = self._document.lines[here] = line
                    yield key, value
            self._open.pop()

    def _key(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(node, None, "a key must be text, not a list or a mapping")
            return None
        if node.tag not in (f"{_TAG}str", f"{_TAG}value", f"{_TAG}timestamp"):
            kind = {"bool": "yes or no", "null": "nothing"}.get(node.tag.removeprefix(_TAG), "a number")
            quoted = '"' + node.value + '"'
            self._refuse(
                node, None, f"YAML reads the key {shown(node.value)} as {kind}; put quotes around it: {quoted}"
            )
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        self._document.texts[location] = node.value
        self._document.spans[location] = (node.start_mark.index, node.end_mark.index)
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "value", "timestamp", "merge"):
            return node.value
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() in ("yes", "true", "on")
        if kind == "int":
            return self._integer(node, location)
        if kind == "float":
            return self._float(node, location)
        return self._refuse(node, location, _unknown_tag(node))

    def _integer(self, node: yaml.ScalarNode, location: Location) -> Any:
        if not _PLAIN_INTEGER.fullmatch(node.value):
            message = "is a number that YAML reads in a way of its own (octal, hexadecimal, base 60, `_`)"
            return self._refuse(node, location, f"{shown(node.value)} {message}; write it with the digits 0 to 9 only")
        if len(node.value.lstrip("+-")) > _LONGEST_INTEGER:
            return self._refuse(node, location, f"the number {shown(node.value)} is too large")
        return int(node.value)

    def _float(self, node: yaml.ScalarNode, location: Location) -> Any:
        special = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
        if node.value.lower() in special:
            return special[node.value.lower()]
        try:
            number = float(node.value if "_" not in node.value else "")
        except ValueError:
            return self._refuse(
                node, location, f"{shown(node.value)} is not a plain decimal number; write for example 0.5"
            )
        if math.isinf(number):
            return self._refuse(node, location, f"the number {shown(node.value)} is too large")
        return number

    def _refuse(self, node: yaml.Node, location: Location | None, message: str) -> Any:
        """Report a problem; the value at the location is then missing."""
        if location is not None:
            self._document.unreadable.add(location)
        self._document.problems.append(Problem(self._document.file, node.start_mark.line + 1, message))
        return None

    def _stop(self, line: int, message: str) -> None:
        raise BudgetsError([*self._document.problems, Problem(self._document.file, line, message)])


def _unknown_tag(node: yaml.Node) -> str:
    return f"the YAML tag {shown(node.tag.replace(_TAG, '!!'))} is not used in this file; remove it"


# --- checks ----------------------------------------------------------------------------------------------------------
