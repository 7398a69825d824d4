"""The report in the terminal, as lines with pytest's markup; nothing is printed here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tabulate import tabulate

from pytest_modelopt.reporting.base_summary import format_compared, format_loosened, format_removed
from pytest_modelopt.reporting.item import Item, Label
from pytest_modelopt.reporting.plain_text import no_command
from pytest_modelopt.reporting.sentences import items
from pytest_modelopt.reporting.summary import counted, machine
from pytest_modelopt.reporting.tables import AnyBlock, AnyRow, tables
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome

Markup: TypeAlias = dict[str, bool]
Line: TypeAlias = tuple[str, Markup]

_OUTPUT_LINES = 15
_NARROWEST = 60
_GAP = "  "
_MARKUP: dict[Label, Markup] = {
    "ERROR": {"red": True, "bold": True},
    "FAIL": {"red": True, "bold": True},
    "INCONCLUSIVE": {"yellow": True},
    "WARN": {"yellow": True},
    "NOTE": {},
}


def lines(record: Record, width: int) -> list[Line]:
    """The lines to write and the markup of each (keywords of pytest's `write_line`), for a terminal of `width` columns.

    Tables that do not fit take a narrower shape, all the same one: first cells are broken over several lines, then
    columns are left out, and it is said which. What still does not fit is wider than the terminal.
    """
    told = items(record)
    told.sort(key=lambda item: item.severity != "info" or item.case_id is not None)  # what matters stands at the end
    wrap = max(width, _NARROWEST)
    first = _headline(record)
    partial: list[Line] = [(f"modelopt: {first.removesuffix('; ')}", {"bold": True})] if first else []
    result = [
        *partial,
        *_base(record, wrap),
        *_tables(tables(record), width),
        *_sentences(told, wrap),
        _closing(record),
    ]
    return [(no_command(text), markup) for text, markup in result]


# --- the base --------------------------------------------------------------------------------------------------------


def _base(record: Record, width: int) -> Iterator[Line]:
    """What head was compared with, and what became looser on the way: above everything else."""
    against = record.against
    if against is None:
        return
    yield from ((line, {"bold": True}) for line in _wrapped(format_compared(against), width, hanging=_GAP))
    told = [f"LOOSENED {format_loosened(each)}" for each in against.loosened]
    markup: Markup = {"red" if record.no_loosening else "yellow": True}
    for text in [*told, format_removed(against)] if against.removed else told:
        yield from ((line, markup) for line in _wrapped(text, width, hanging="     "))
    yield "", {}


# --- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """One way to lay a table out: which columns, and how their cells are broken over lines."""

    form: Callable[[str, str], str]
    left_out: tuple[str, ...] = ()

    def table(self, block: AnyBlock) -> list[Line]:
        return _table(block, [name for name in block.names if name not in self.left_out], self.form)


def _tables(told: Sequence[AnyBlock], width: int) -> Iterator[Line]:
    for shape in _SHAPES:
        tables = [shape.table(block) for block in told]
        if all(len(text) <= width for table in tables for text, _ in table):
            break
    for block, table in zip(told, tables, strict=True):
        yield block.title, {"bold": True}
        for line in _wrapped(f"{_GAP}{block.conditions}", max(width, _NARROWEST), hanging=2 * _GAP):
            yield line, {}
        yield from table
        yield "", {}
    if told and shape.left_out:
        yield f"(left out, as the terminal is narrow: {' and '.join(shape.left_out)})", {}
        yield "", {}


def _whole(_name: str, cell: str) -> str:
    return cell


def _recipe_broken(name: str, cell: str) -> str:
    return _broken_steps(cell) if name == "recipe" else cell


def _broken_steps(recipe: str) -> str:
    return recipe.replace(" + ", "\n+ ")


def _broken(name: str, cell: str) -> str:
    """A cell over several lines, nothing lost: each step and its parameters, a figure and what qualifies it."""
    if name == "recipe":
        return _broken_steps(cell).replace("(", "\n(")
    if name in ("changed", "flips"):
        return cell.replace(" / ", "\n/ ")
    if name in ("speedup", "latency"):
        return re.sub(r" (?=[(\[]|-> )", "\n", cell)  # an interval stays on its line
    return re.sub(r" (?=[(\[])|(?<=,) ", "\n", cell)


_SHAPES = (
    _Shape(_whole),
    _Shape(_recipe_broken),
    _Shape(_broken),
    _Shape(_broken, left_out=("changed",)),
    _Shape(_broken, left_out=("changed", "flips")),
    _Shape(_broken, left_out=("changed", "size", "flips")),
)


def _table(block: AnyBlock, names: Sequence[str], form: Callable[[str, str], str]) -> list[Line]:
    rows: Sequence[AnyRow] = block.rows
    columns = [block.names.index(name) for name in names]
    cells = [[form(name, row.cells[column]) for name, column in zip(names, columns, strict=True)] for row in rows]
    # The header goes in as a row: as a header, tabulate would make each column two wider than its name.
    text = tabulate(
        [[block.headers[column] for column in columns], *cells],
        tablefmt="plain",
        colalign=[block.alignments[column] for column in columns],
        disable_numparse=True,
    )
    header, *body = (_GAP + line.rstrip() for line in text.split("\n"))
    rule = _GAP + "-" * (max(len(line) for line in (header, *body)) - len(_GAP))
    result: list[Line] = [(header, {}), (rule, {})]
    for row, row_cells in zip(rows, cells, strict=True):
        height = max(cell.count("\n") for cell in row_cells) + 1
        result += [(line, _row_markup(row)) for line in body[:height]]
        body = body[height:]
    return result


def _row_markup(row: AnyRow) -> Markup:
    if row.outcome in ("fail", "error"):
        return {"red": True}
    return {"yellow": True} if row.outcome in ("warn", "inconclusive") else {}


# --- sentences -------------------------------------------------------------------------------------------------------


def _sentences(told: Sequence[Item], width: int) -> Iterator[Line]:
    said: set[tuple[str | None, str]] = set()
    for index, item in enumerate(told):
        following = told[index + 1] if index + 1 < len(told) else None
        for line in _wrapped(f"{item.label} {item.text}", width, hanging="     "):
            yield line, _MARKUP[item.label]
        for found in (*item.found, *item.changed):  # once, where several limits of a case are explained by it
            if (item.case_id, found) not in said:
                said.add((item.case_id, found))
                for line in _wrapped(f"     {found}", width, hanging="       "):
                    yield line, {}
        # What is known about a case is said once, under the last of its items that it belongs to.
        if not (following and following.case_id == item.case_id and following.why == item.why):
            for each in item.why:
                for line in _wrapped(f"     {each}", width, hanging="       "):
                    yield line, {}
        for line in _output(item.output):
            yield line, {}
    if told:
        yield "", {}


def _output(output: Sequence[str]) -> Iterator[str]:
    hidden = max(0, len(output) - _OUTPUT_LINES)
    if output:
        yield "     the worker's last output" + (f" ({hidden} more lines in the record):" if hidden else ":")
    for line in output[hidden:]:
        yield f"     | {line}"


def _wrapped(text: str, width: int, hanging: str) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ) or [""]


def _closing(record: Record) -> Line:
    run = run_outcome(record)
    if run.is_red:
        markup = {"red": True, "bold": True}
    elif run.headline == "passed":
        markup = {"green": True}
    else:
        markup = {"yellow": True}
    return f"modelopt: {_headline(record)}{counted(record)}; {machine(record)}", markup


def _headline(record: Record) -> str:
    """What the counts do not say: that something is missing."""
    run = run_outcome(record)
    is_told_by_counts = not run.is_red or "red case" in run.causes
    tells = run.is_partial or not run.ran or "interrupted" in run.causes or not is_told_by_counts
    return f"{run.headline}; " if tells else ""
