"""One more model, or one more recipe, in the text of a budgets file, in which not a character of the rest changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from pytest_modelopt.config.document import Document


@dataclass(frozen=True)
class Opening:
    """Where the text of a file takes one more model."""

    position: int
    """Behind the last line that belongs to the mapping, comments of its last entry included."""
    indent: str
    """Of its keys."""


def opening(document: Document, path: tuple[str, ...] = ("models",)) -> Opening:
    """Where one more entry of a mapping goes, behind the others: one more model, by default.

    Raises:
        ValueError: where the mapping is not written in lines of its own, or not there.
    """
    events = _value(document.source, path)
    if not events:
        named = ".".join(path)
        raise ValueError(f"{document.file}: there is no `{named}:` in lines of its own, so nothing can be added to it")
    is_in_lines = isinstance(events[0], yaml.MappingStartEvent) and not events[0].flow_style
    if not is_in_lines:
        raise ValueError(
            f"{document.file}:{document.line(path)}: `{path[-1]}:` is written in braces or as an alias, so nothing can "
            f"be added: write it in lines, `{path[-1]}:` and below it the name of each entry with an indent"
        )
    last = max(_span(event)[1] for event in events if not _ends_a_block(event))
    position = _line_end(document.source, len(document.source[:last].rstrip()))
    name = events[1].start_mark
    assert name is not None
    return Opening(_behind_comments(document.source, position), " " * name.column)


def added(source: str, place: Opening, lines: Iterable[str]) -> str:
    """`source` with `lines` in that place."""
    line_end = "\r\n" if "\r\n" in source else "\n"
    block = "".join(line + line_end for line in lines)
    before = source[: place.position]
    return before + ("" if before.endswith("\n") else line_end) + block + source[place.position :]


def require_only_added(before: Document, after: Document, *path: str) -> None:
    """That `after` says what `before` says, and beside it an entry of `models:` (its name), or of a mapping below
    (`name, "recipes", recipe`).

    Raises:
        ValueError: where it does not.
    """
    at = ("models", *path)
    texts = {where: text for where, text in after.texts.items() if where[: len(at)] != at}
    if _without(after.data, at) != before.data or (texts, after.problems) != (before.texts, before.problems):
        raise ValueError(
            "with the new entry the file would state something else, too (an alias or an indent that others use), "
            "so nothing was written: add it by hand"
        )


def _without(data: Any, path: tuple[str, ...]) -> Any:
    """The mapping without the entry at this path; None where it is not there."""
    if not isinstance(data, dict) or path[0] not in data:
        return None
    others = {key: value for key, value in data.items() if key != path[0]}
    if len(path) == 1:
        return others
    return {key: _without(value, path[1:]) if key == path[0] else value for key, value in data.items()}


def _value(source: str, path: tuple[str, ...]) -> list[yaml.Event]:
    """The events of the value at this path of keys; none where it is not there, or stands behind an alias."""
    events = list(yaml.parse(source, yaml.SafeLoader))[2:-2]  # without those of the stream and the document
    for key in path:
        events = dict(_entries(events)).get(key, [])
    return events


def _entries(mapping: list[yaml.Event]) -> Iterator[tuple[str, list[yaml.Event]]]:
    """Each key that is text, with the events of its value; none of a node that is no mapping."""
    if not mapping or not isinstance(mapping[0], yaml.MappingStartEvent):
        return
    inside = iter(mapping[1:-1])
    for key in inside:
        _node(key, inside)
        value = _node(next(inside), inside)
        if isinstance(key, yaml.ScalarEvent):
            yield key.value, value


def _node(first: yaml.Event, behind: Iterator[yaml.Event]) -> list[yaml.Event]:
    """All events of the node that begins with `first`."""
    found, depth = [first], int(isinstance(first, yaml.CollectionStartEvent))
    while depth:
        found.append(next(behind))
        depth += isinstance(found[-1], yaml.CollectionStartEvent) - isinstance(found[-1], yaml.CollectionEndEvent)
    return found


def _ends_a_block(event: yaml.Event) -> bool:
    """Whether it is the end of a mapping or list without brackets: it stands where the next thing begins."""
    start, end = _span(event)
    return isinstance(event, yaml.CollectionEndEvent) and start == end


def _span(event: yaml.Event) -> tuple[int, int]:
    assert event.start_mark is not None
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index


def _line_end(source: str, position: int) -> int:
    newline = source.find("\n", position)
    return len(source) if newline < 0 else newline + 1


def _behind_comments(source: str, position: int) -> int:
    """Behind the comments that follow with an indent, as those of recipes that a first file leaves out."""
    end = position
    while position < len(source):
        following = _line_end(source, position)
        line = source[position:following]
        if line.strip() and not line.lstrip(" ").startswith("#"):
            break
        if line.startswith(" ") and line.strip():
            end = following
        elif line.strip():
            break
        position = following
    return end
