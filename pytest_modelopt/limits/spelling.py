"""The nearest correct spelling of a wrong word, and wrong values shown on one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_WORD = 100
_LONGEST_SHOWN = 60
_LONGEST_NAME = 100
_LONGEST_MESSAGE = 500


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` most likely means, or None. Case, `_`, `-` and blanks do not count."""
    by_normal: dict[str, str] = {}
    for choice in choices:
        by_normal.setdefault(_normal(choice), choice)
    near = difflib.get_close_matches(_normal(word[:_LONGEST_WORD]), list(by_normal), n=1, cutoff=0.6)
    return by_normal[near[0]] if near else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence: the nearest choice, or all of them where none is near, or nothing where there is none."""
    known = list(choices)
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; the valid ones are {', '.join(known)}" if known else ""


def plain(name: str) -> str:
    """A name as a message shows it without quotes: on one line, shortened where it is long."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...")[1:-1]


def printable(message: str) -> str:
    """The message of another room with whatever cannot be printed on one line escaped, shortened where it is long."""
    text = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shown(value: object) -> str:
    """A value as a message shows it: quoted text, shortened where it is long, always on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}...")
    if isinstance(value, int | float):
        return _shown_number(value)
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple | set | frozenset):
        return "a list"
    return f"a {type(value).__name__}"


def _shown_number(value: float) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _normal(word: str) -> str:
    return word.strip().lower().replace("_", "-").replace(" ", "-")
