"""The front as a picture: drop and speed over memory, each with its interval, as SVG by matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_modelopt.exploring.front_points import Point
from pytest_modelopt.limits.front import Found

MISSING = 'no picture was drawn, since matplotlib is missing: run `pip install "pytest-modelopt[explore]"`'
_NAMED = 12
"""Points that have a name in the picture: those of the front with the least memory."""
_APART = 0.03
"""Of the memory, and twice as much of the range of figures: nearer points share a name."""
_KINDS = {"other": ("0.6", "."), "front": ("C0", "o"), "measured anew": ("C3", "D")}
"""Colour and mark of each kind of points."""


def is_installed() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write the picture; the same points give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "pytest-modelopt", "svg.fonttype": "none"}):
        sheet = Figure(figsize=(10, 8), layout="constrained")
        FigureCanvasSVG(sheet)
        sheet.suptitle(title)
        above, below = sheet.subplots(2, 1, sharex=True)
        is_share = all(point.is_share for point in points)
        label = "drop, percentage points" if is_share else "drop, in the metric's unit"
        factor = 100.0 if is_share else 1.0
        _panel(above, points, lambda point: _scaled(point.drop, factor), f"{label} (95% bounds)")
        _panel(below, points, lambda point: point.speed, "times as fast (interval of the gate)")
        below.axhline(1.0, color="0.7", linewidth=0.8)
        below.set_xlabel("memory of a call, % of the original's")
        if above.get_legend_handles_labels()[0]:
            above.legend(loc="best")
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Any, points: Sequence[Point], figure: Callable[[Point], Found | None], label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(visible=True, color="0.9")
    known = [(point, found) for point in points if (found := figure(point)) is not None]
    for kind, (color, mark) in _KINDS.items():
        of = [(point, found) for point, found in known if _kind(point) == kind]
        if not of:
            continue
        memory = [point.memory for point, _ in of]
        axes.errorbar(
            [100 * each.at for each in memory],
            [found.at for _, found in of],
            xerr=[[100 * (each.at - each.low) for each in memory], [100 * (each.high - each.at) for each in memory]],
            yerr=[[found.at - found.low for _, found in of], [found.high - found.at for _, found in of]],
            fmt=mark,
            color=color,
            label=kind,
            capsize=2,
            linewidth=1,
        )
    named: list[tuple[float, float]] = []
    span = max((found.at for _, found in known), default=0.0) - min((found.at for _, found in known), default=0.0)
    for point, found in known:
        near = any(abs(x - point.memory.at) < _APART and abs(y - found.at) <= 2 * _APART * span for x, y in named)
        if not point.is_front or near or len(named) == _NAMED:
            continue  # names in one place are read by nobody
        named.append((point.memory.at, found.at))
        offset: dict[str, Any] = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8}
        axes.annotate(point.recipe, (100 * point.memory.at, found.at), parse_math=False, **offset)


def _kind(point: Point) -> str:
    return "measured anew" if point.is_confirmed else "front" if point.is_front else "other"


def _scaled(drop: Found | None, factor: float) -> Found | None:
    return None if drop is None else Found(factor * drop.at, factor * drop.low, factor * drop.high)
