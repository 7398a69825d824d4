"""The front in characters: each candidate over memory and drop, with the interval of its drop, and its speed beside."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from pytest_modelopt.exploring.front_points import Point
from pytest_modelopt.results.figures import format_factor, format_number, format_percentage, format_points

_WIDTH, _HEIGHT = 60, 12
"""Characters of the plot."""
_MARKS = string.ascii_letters
_LEAST = 0.005
"""What the scale of the drop spans at least."""
_LEFT = 10
"""Characters of the scale beside it."""


def plot_lines(points: Sequence[Point]) -> Iterator[str]:
    """Nothing where no two of the front can be compared."""
    front = [(point, point.drop) for point in points if point.is_front and point.drop is not None][: len(_MARKS)]
    if len(front) < 2:
        return
    low, high = min(0.0, *(drop.low for _, drop in front)), max(drop.high for _, drop in front)
    low, high = (low, high) if high - low > _LEAST else (low - _LEAST, high + _LEAST)
    most = max(1.0, max(point.memory.at for point, _ in front))
    rows = [[" "] * (_WIDTH + 1) for _ in range(_HEIGHT + 1)]

    def row_of(drop: float) -> int:
        return _HEIGHT - round(min(1.0, max(0.0, (drop - low) / (high - low))) * _HEIGHT)

    columns = [round(point.memory.at / most * _WIDTH) for point, _ in front]
    for column, (_, drop) in zip(columns, front, strict=True):
        for row in range(row_of(drop.high), row_of(drop.low) + 1):
            rows[row][column] = "|"
    for mark, column, (_, drop) in zip(_MARKS, columns, front, strict=False):
        cell = rows[row_of(drop.at)]
        cell[column] = mark if cell[column] == "|" else "*"
    told = format_points if front[0][0].is_share else format_number
    for number, cells in enumerate(rows):
        scale = {0: told(high), _HEIGHT: told(low)}.get(number, "")
        yield f"{scale:>{_LEFT}} |{''.join(cells)}".rstrip()
    yield f"{'drop':>{_LEFT}} +{'-' * (_WIDTH + 1)}"
    yield f"{'':>{_LEFT}}  0%{'memory, of the original':^{_WIDTH - 7}}{format_percentage(most):>5}"
    for mark, (point, _) in zip(_MARKS, front, strict=False):
        speed = "" if point.speed is None else f", {format_factor(point.speed.at)} as fast"
        anew = ", measured anew" if point.is_confirmed else ""
        yield f"  {mark}  {point.recipe}: {format_percentage(point.memory.at)} of the memory{speed}{anew}"
    yield "  |  95% bounds of the drop in the population; *  several in one place"
