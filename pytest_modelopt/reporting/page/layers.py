"""The page of what a recipe costs on each layer alone, as `explore --sensitivity` has measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_modelopt.reporting.page.charts import Chart, Shape, line
from pytest_modelopt.reporting.page.templates import filled

_WIDTH, _HEIGHT = 160, 18


@dataclass(frozen=True)
class LayerTable:
    """Of one recipe."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """A layer each, the worst first; the first cell is its name."""
    harms: tuple[float, ...]
    """Of each row: from 0 to 1, the share of the worst one's."""
    notes: tuple[str, ...] = ()


def render_layers(model: str, tables: Sequence[LayerTable]) -> str:
    """The page.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    drawn = [(table, [(row, _bar(row[0], harm)) for row, harm in _with_harms(table)]) for table in tables]
    return filled("layers.html", title=f"Layers of {model}", model=model, tables=drawn)


def _with_harms(table: LayerTable) -> zip[tuple[tuple[str, ...], float]]:
    return zip(table.rows, table.harms, strict=True)


def _bar(name: str, harm: float) -> Chart:
    length = harm * (_WIDTH - 2)
    shapes = (
        Shape("axis", line(1, 1, 1, _HEIGHT - 1)),
        Shape("interval", line(1, _HEIGHT / 2, 1 + length, _HEIGHT / 2)),
    )
    return Chart(f"harm of {name}: {100 * harm:.0f}% of the worst layer's", _WIDTH, _HEIGHT, shapes)
