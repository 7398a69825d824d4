"""Parts that sentences share: enumerations, and the parameters that they are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_first

Parameters = Mapping[str, Any]
"""Of one rule: what a message of that name takes is what the rule gives."""
Message = Callable[[MeasuredCase, Parameters], str]


def enumerated(words: Sequence[str], shown: int = 3) -> str:
    """`a, b and c`; of many the first ones, and how many more."""
    if len(words) > shown:
        return format_first(words, shown)
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
