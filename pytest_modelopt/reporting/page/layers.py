"""What a recipe costs on each layer alone, as `explore` measured it: a page of its own, and a part of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_modelopt.reporting.layer_costs_text import LEGEND, LayerTable, table
from pytest_modelopt.reporting.page.charts import Chart, Shape, line
from pytest_modelopt.reporting.page.templates import filled
from pytest_modelopt.results.layer_costs import RecipeSensitivity

_WIDTH, _HEIGHT = 160, 18
_ROWS_SHOWN = 500


@dataclass(frozen=True)
class DrawnTable:
    """The table of one recipe with a bar for each row."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], Chart], ...]
    more: int
    """Rows that are left out."""
    notes: tuple[str, ...]


def render_layers(model: str, tables: Sequence[LayerTable]) -> str:
    """The page.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    drawn = list(map(_drawn, tables))
    return filled("layers.html", title=f"Layers of {model}", model=model, tables=drawn, legend=LEGEND)


def layer_tables(found: Sequence[RecipeSensitivity]) -> list[DrawnTable]:
    """Those of a record, each with its model before its recipe."""
    return [_drawn(table(each), f"{each.model}/") for each in found]


def _drawn(made: LayerTable, before: str = "") -> DrawnTable:
    rows = tuple((row, _bar(row[0], harm)) for row, harm in zip(made.rows, made.harms, strict=True))
    shown = rows[:_ROWS_SHOWN]
    return DrawnTable(before + made.title, made.headers, shown, len(rows) - len(shown), made.notes)


def _bar(name: str, harm: float) -> Chart:
    length = harm * (_WIDTH - 2)
    shapes = (
        Shape("axis", line(1, 1, 1, _HEIGHT - 1)),
        Shape("interval", line(1, _HEIGHT / 2, 1 + length, _HEIGHT / 2)),
    )
    return Chart(f"harm of {name}: {100 * harm:.0f}% of the worst layer's", _WIDTH, _HEIGHT, shapes)
