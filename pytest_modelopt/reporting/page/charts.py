"""Charts as shapes and words at coordinates: a template draws them as SVG, and the style sheet colours them.

No shape has an id, so that any number of charts stand in one page, and nothing in one depends on when it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.limits.front import Found

_MOST_TICKS = 12
_BINARY = (1024.0**3, 1024.0**2, 1024.0)


@dataclass(frozen=True)
class Shape:
    kind: str
    """Classes of the style sheet."""
    path: str
    """In SVG's language of paths."""
    title: str = ""
    """Shown where the pointer rests on it."""


@dataclass(frozen=True)
class Word:
    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True)
class Chart:
    label: str
    """All that it shows, in words, for those who do not see it."""
    width: int
    height: int
    shapes: tuple[Shape, ...]
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Figures from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a figure; of one that lies beyond the scale, the nearer end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int = 5, *, are_bytes: bool = False) -> list[float]:
        """Round figures, at most so many: of bytes, round numbers of the unit in which they are told."""
        unit = next((each for each in _BINARY if self.high >= each), 1.0) if are_bytes else 1.0
        raw = (self.high - self.low) / unit / max(1, most - 1)
        size = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 0.0
        if not size or not math.isfinite(size):
            return []
        step = unit * next(size * factor for factor in (1.0, 2.0, 5.0, 10.0) if size * factor >= raw)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [number * step for number in range(first, min(last, first + _MOST_TICKS) + 1)]


def scale(values: Iterable[float], start: float, end: float, *, room: float = 0.08) -> Scale | None:
    """One with room at both ends; None where no figure is finite, or they lie too far apart for arithmetic."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    beside = room * (high - low) if high > low else room * abs(high) or 1.0
    made = Scale(low - beside, high + beside, start, end)
    return made if math.isfinite(made.high - made.low) and made.high > made.low else None


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"


def box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"


def dot(x: float, y: float) -> str:
    """A line of no length, which a round end makes a dot as large as its stroke."""
    return f"M{x:.1f} {y:.1f}h0"


def dots(points: Iterable[tuple[float, float]]) -> str:
    return "".join(dot(x, y) for x, y in points)


def whisker(x: Scale, y: Scale, at_x: float, found: Found) -> str:
    """The interval of a figure as a vertical line, '' where it repeats."""
    if found.low == found.high:
        return ""
    return line(x.at(at_x), y.at(found.low), x.at(at_x), y.at(found.high))


def joined(points: Sequence[tuple[float, float]]) -> str:
    """A line through the points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
