"""One more model in the text of a budgets file, in which not a character of the rest changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

from pytest_modelopt.config.document import Document


@dataclass(frozen=True)
class Opening:
    """Where the text of a file takes one more model."""

    position: int
    """Behind the last line that belongs to `models:`, comments of the last model included."""
    indent: str
    """Of the models' names."""


def opening(document: Document) -> Opening:
    """Where one more model goes, behind the others.

    Raises:
        ValueError: where `models:` is not written in lines of its own.
    """
    events = list(_models(document.source))
    is_in_lines = isinstance(events[0], yaml.MappingStartEvent) and not events[0].flow_style
    if not is_in_lines:
        raise ValueError(
            f"{document.file}:{document.line(('models',))}: `models:` is written in braces or as an alias, so no model "
            "can be added: write it in lines, `models:` and below it the name of each model with an indent"
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


def require_only_added(before: Document, after: Document, name: str) -> None:
    """That `after` says what `before` says, and the model `name` beside it.

    Raises:
        ValueError: where it does not.
    """
    models = after.data["models"]
    others = {**after.data, "models": {key: value for key, value in models.items() if key != name}}
    texts = {where: text for where, text in after.texts.items() if where[:2] != ("models", name)}
    if name not in models or (others, texts, after.problems) != (before.data, before.texts, before.problems):
        raise ValueError("the text with the new model would say something else, too, so nothing was written")


def _models(source: str) -> Iterator[yaml.Event]:
    """The events of the value of `models:`. The file is known to be a mapping that has this key."""
    depth, key, is_value, inside = 0, "", False, False
    for event in yaml.parse(source, yaml.SafeLoader):
        if depth == 1:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            inside = is_value and key == "models"
            key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            is_value = not is_value
        if inside:
            yield event
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


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
