"""Parts that sentences share: counts, enumerations, and the parameters that they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_modelopt.results.case import MeasuredCase

Parameters = Mapping[str, Any]
"""Of one rule: what a message of that name takes is what the rule gives."""
Message = Callable[[MeasuredCase, Parameters], str]


def count(number: int, what: str, more: str = "") -> str:
    """`1 layer`, `2 layers`; `more` is a plural that is not made with s."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {more or what + 's'}"


def enumerated(words: Sequence[str], shown: int = 3) -> str:
    """`a, b and c`; of many the first ones, and how many more."""
    if len(words) > shown:
        return f"{', '.join(words[:shown])} and {len(words) - shown} more"
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
