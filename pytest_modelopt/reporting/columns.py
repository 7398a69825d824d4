"""Tables as lists of columns: figures in one unit and one number of digits, and which columns fit side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tabulate import tabulate

from pytest_modelopt.limits.kind import Unit
from pytest_modelopt.results.figures import format_number

Alignment = Literal["left", "right"]
Mark = Literal["", "✗", "?", "!"]
"""Beside a figure whose limit is broken, is not decided, or is not kept and only warns."""

MISSING = "-"
_LEADING = 2
"""Verdict and recipe stand at the beginning of each table that a list of columns is split into."""
_MOST_DECIMALS = 3
_MOST_MORE_DECIMALS = 4
"""By how many more two figures are told apart; a broken limit that is nearer yet is known by its mark."""
_DIGITS, _SCORE_DIGITS = 3, 4
_LONGEST_FIGURE = 10_000
_UNITS: dict[Unit, tuple[tuple[str, float], ...]] = {
    "bytes": ((" B", 1.0), (" KiB", 1024.0), (" MiB", 1024.0**2), (" GiB", 1024.0**3)),
    "time": ((" us", 1e-6), (" ms", 1e-3), (" s", 1.0)),
    "percentage": (("%", 0.01),),
    "factor": (("x", 1.0),),
}


@dataclass(frozen=True)
class Column:
    """One column: its name, and a cell for each row of its table."""

    name: str
    cells: tuple[str, ...]
    alignment: Alignment = "right"
    is_timed: bool = False
    """Whether its figures differ from run to run: they stand apart from those that repeat."""

    def of_rows(self, rows: Sequence[int]) -> Column:
        """The same column of a table that has only these rows."""
        return Column(self.name, tuple(self.cells[row] for row in rows), self.alignment, self.is_timed)


@dataclass(frozen=True)
class Shown:
    """What a row has in a column of figures, in base units. None: it was not measured."""

    after: float | None
    before: float | None = None
    """Set where two figures belong together: `before -> after`."""
    limit: float | None = None
    mark: Mark = ""
    is_waived: bool = False


# --- figures ---------------------------------------------------------------------------------------------------------


def figure_column(
    name: str, unit: Unit, shown: Sequence[Shown | None], *, in_points: bool = False, is_timed: bool = False
) -> Column:
    """A column of figures, `3.41 of 3 MiB`. A row that has nothing to do with it (None) has an empty cell.

    `in_points`: points and scores are those of a metric from 0 to 1.
    """
    form = _form([each for each in shown if each is not None], unit, in_points=in_points, is_timed=is_timed)
    return Column(name, tuple("" if each is None else form(each) for each in shown), is_timed=is_timed)


def alike(figures: Sequence[float | None], unit: Unit, *, in_points: bool = False) -> list[str]:
    """Figures, in base units, as a column has them: in one unit, and with one number of digits."""
    return list(figure_column("", unit, [Shown(figure) for figure in figures], in_points=in_points).cells)


def _form(shown: Sequence[Shown], unit: Unit, *, in_points: bool, is_timed: bool) -> Callable[[Shown], str]:
    figures = [figure for each in shown for figure in (each.before, each.after) if figure is not None]
    stated = [each.limit for each in shown if each.limit is not None]
    smaller = [limit for limit in stated if not figures or limit < max(figures)]
    suffix, size = _unit(figures or stated, unit, in_points, smaller)
    least = _decimals([figure / size for figure in figures], _SCORE_DIGITS if unit == "score" else _DIGITS)
    alike = [(first / size, second / size) for each in shown for first, second in _pairs(each, is_timed)]
    decimals = max([least, *(_decimals_apart(first, second, least) for first, second in alike)])

    def text(each: Shown) -> str:
        told = MISSING if each.after is None else _number(each.after / size, decimals)
        if each.before is not None and (is_timed or each.before != each.after):
            before = _number(each.before / size, decimals)
            if each.after is not None and before == told and not is_timed:
                return f"{told}{suffix} ({_difference(each.after - each.before, unit, in_points)})"
            told = f"{before} -> {told}"
        if each.limit is not None:
            told += f" of {_stated(each.limit / size)}"
        told += "" if told == MISSING else suffix
        return f"{f'{each.mark} ' if each.mark else ''}{told}{' waived' if each.is_waived else ''}"

    return text


def _pairs(each: Shown, is_timed: bool) -> Iterator[tuple[float, float]]:
    """Figures that are not the same, and must not look it: one and its limit, and what repeats before and after."""
    if each.after is None:
        return
    if each.mark in ("✗", "!") and each.limit is not None:
        yield each.after, each.limit
    if each.before is not None and not is_timed:
        yield each.before, each.after


def _decimals_apart(first: float, second: float, least: int) -> int:
    """Decimals that tell two figures apart; `least` where they are the same, or too near for that."""
    for decimals in range(least, least + _MOST_MORE_DECIMALS + 1):
        if float(f"{first:.{decimals}f}") != float(f"{second:.{decimals}f}"):
            return decimals
    return least


def _difference(difference: float, unit: Unit, in_points: bool) -> str:
    """'+4 B': of two figures that are too near to be told apart in the unit of their column."""
    suffix, size = _unit([difference], unit, in_points)
    text = _number(difference / size, _decimals([difference / size], _DIGITS))
    return f"{'+' if difference > 0 else ''}{text}{suffix}"


def _unit(figures: Sequence[float], unit: Unit, in_points: bool, limits: Sequence[float] = ()) -> tuple[str, float]:
    """The largest unit in which the largest figure is at least 1, the smallest at least 0.1, and each of the `limits`
    at least 1, as their authors write them: 316 KiB, and not 0.3086 MiB."""
    if unit in ("points", "score"):
        return (" pp" if unit == "points" else "%", 0.01) if in_points else ("", 1.0)
    units = _UNITS[unit]
    sizes = [abs(figure) for figure in figures if figure]
    if not sizes or len(units) == 1:
        return units[0]
    low, high = min([*sizes, *(0.1 * limit for limit in limits if limit)]), max(sizes)
    short = [each for each in units if high / each[1] < _LONGEST_FIGURE] or [units[-1]]
    return next((each for each in reversed(short) if high >= each[1] and low >= 0.1 * each[1]), short[0])


def _decimals(figures: Sequence[float], digits: int) -> int:
    """Decimals with which the smallest figure has so many digits, as far as they are not zero in all of them."""
    sizes = [abs(figure) for figure in figures if figure and math.isfinite(figure)]
    if not sizes:
        return 0
    decimals = min(_MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(min(sizes)))))
    while decimals and all(_number(figure, decimals).endswith("0") for figure in figures):
        decimals -= 1
    return decimals


def _number(figure: float, decimals: int) -> str:
    text = f"{figure:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _stated(limit: float) -> str:
    """A limit, in four digits: as its author wrote it, where that was in this unit."""
    return format_number(limit, digits=4)


# --- what fits -------------------------------------------------------------------------------------------------------

Fits: TypeAlias = Callable[[Sequence[Column]], bool]


def side_by_side(columns: Sequence[Column], fits: Fits) -> list[list[Column]]:
    """The columns as one table, or as several of which each fits: exact figures first, then timed ones, nothing lost.

    The first two columns begin each of them. What is too wide even alone stands alone. A row that has no figure in a
    table but the first is left out there.
    """
    if fits(columns):
        return [list(columns)]
    leading, figures = list(columns[:_LEADING]), columns[_LEADING:]
    tables: list[list[Column]] = []
    for is_timed in (False, True):
        table: list[Column] = []
        for column in (each for each in figures if each.is_timed is is_timed):
            if table and not fits([*leading, *table, column]):
                tables.append(table)
                table = []
            table.append(column)
        if table:
            tables.append(table)
    return [_with_leading(leading, table, is_first=number == 0) for number, table in enumerate(tables or [[]])]


def _with_leading(leading: Sequence[Column], table: Sequence[Column], *, is_first: bool) -> list[Column]:
    whole = [*leading, *table]
    rows = range(len(leading[0].cells))
    kept = [row for row in rows if is_first or any(column.cells[row] not in ("", MISSING) for column in table)]
    return [column.of_rows(kept) for column in whole] if kept else whole


def drawn(columns: Sequence[Column], tablefmt: str, *, with_header: bool = True) -> str:
    """The table in one of tabulate's formats."""
    rows = list(zip(*(column.cells for column in columns), strict=True))
    return tabulate(
        rows,
        headers=[column.name for column in columns] if with_header else (),
        tablefmt=tablefmt,
        colalign=[column.alignment for column in columns],
        disable_numparse=True,
    )
