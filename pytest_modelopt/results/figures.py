"""Figures in words: the one way in which tables, sentences and notes show a number with its unit, a count or a list."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import islice, pairwise


def format_bytes(count: float, *, digits: int = 3) -> str:
    """`3.21 MiB`, `512 B`."""
    return _scaled(count, [("B", 1.0), ("KiB", 1024.0), ("MiB", 1024.0**2), ("GiB", 1024.0**3)], digits)


def format_percentage(share: float, *, digits: int = 3) -> str:
    """`56.2%` of 0.562."""
    return f"{format_number(100 * share, digits=digits)}%"


def format_points(drop: float, *, digits: int = 3) -> str:
    """`0.28 pp` of 0.0028."""
    return f"{format_number(100 * drop, digits=digits)} pp"


def format_factor(factor: float, *, digits: int = 3) -> str:
    """`1.42x`."""
    return f"{format_number(factor, digits=digits)}x"


def format_time(seconds: float, *, digits: int = 3) -> str:
    """`4.31 ms` of 0.00431."""
    return _scaled(seconds, [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0)], digits)


def format_number(value: float, *, digits: int = 3) -> str:
    """At least `digits` significant digits without trailing zeros; digits before the point are never rounded away."""
    if not math.isfinite(value) or 0 < abs(value) < 1e-6:
        return f"{value:.{digits}g}"
    before_point = math.floor(math.log10(abs(value))) + 1 if value else 1
    text = f"{value:.{max(0, digits - before_point)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def format_count(number: int, what: str, plural: str = "") -> str:
    """`1 layer`, `2 layers`; `plural` is one that is not made with s."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {plural or what + 's'}"


def format_first(names: Collection[str], shown: int, show: Callable[[str], str] = str) -> str:
    """`a, b and 3 more`: the first of many names, each as `show` gives it."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(show, islice(names, shown))) + more


def _scaled(value: float, units: Sequence[tuple[str, float]], digits: int) -> str:
    """In the first unit in which the rounded number stays below one of the next unit."""
    for (unit, size), (_, next_size) in pairwise(units):
        text = format_number(value / size, digits=digits)
        if not abs(float(text)) * size >= next_size:
            return f"{text} {unit}"
    unit, size = units[-1]
    return f"{format_number(value / size, digits=digits)} {unit}"
