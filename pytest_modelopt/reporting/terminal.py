"""The report in the terminal, as lines with pytest's markup; nothing is printed here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.base_summary import format_compared, format_loosened, format_removed
from pytest_modelopt.reporting.changes import is_open, nothing_changed, with_originals
from pytest_modelopt.reporting.columns import Column, drawn, side_by_side
from pytest_modelopt.reporting.detail_columns import detail_columns, legend
from pytest_modelopt.reporting.figure_columns import columns_of
from pytest_modelopt.reporting.item import Item, Label, each_once, headings
from pytest_modelopt.reporting.notes import machine_notes, model_notes, run_notes, waiver_notes
from pytest_modelopt.reporting.plain_text import no_command
from pytest_modelopt.reporting.sentences import items_by_case
from pytest_modelopt.reporting.summary import counted, machine
from pytest_modelopt.reporting.table import Block, blocks
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome

Markup: TypeAlias = dict[str, bool]
Line: TypeAlias = tuple[str, Markup]

_OUTPUT_LINES = 15
_NARROWEST = 60
_GAP = "  "
_INDENT = 5 * " "
_MARKUP: dict[Label, Markup] = {
    "ERROR": {"red": True, "bold": True},
    "FAIL": {"red": True, "bold": True},
    "INCONCLUSIVE": {"yellow": True},
    "WARN": {"yellow": True},
    "NOTE": {},
}
_COLOURS: dict[str, Markup] = {"✗": {"red": True}, "!": {"yellow": True}, "?": {"yellow": True}}
"""Of a row, by the symbol of its verdict."""


def lines(record: Record, width: int, *, verbose: bool = False, explained: Collection[str] = ()) -> list[Line]:
    """The lines to write and the markup of each (keywords of pytest's `write_line`), for a terminal of `width` columns.

    First the verdict, then what was loosened, what is not kept, and the tables; notes about models and the details of
    figures only where it is to be `verbose`. Against a base the tables hold what failed or changed, and what else there
    is only where it is to be `verbose`. `explained` are ids of cases whose failure is told elsewhere: here they
    have their rows only. A table that is too wide is drawn as several, all columns in one of them.
    """
    wrap = max(width, _NARROWEST)
    told = [item for found in items_by_case(record, record.cases) for item in found]
    loud = [item for item in told if item.severity != "info" and _is_new(item, explained)]
    ran = run_notes(record)
    quiet = [item for item in told if item.severity == "info"]
    models, found = model_notes(record), blocks(record)
    shown = found if verbose or record.against is None else list(filter(None, map(_opened, found)))
    result = [
        *_verdict(record, wrap),
        *_base(record, wrap),
        *_sentences([item for item in ran if item.severity != "info"], wrap),
        *_sentences(sorted(loud, key=lambda item: item.severity != "error"), wrap, verbose=verbose),
        *_explained(loud, wrap),
        ("", {}),
        *(line for block in shown for line in _table(block, width)),
        *_nothing_changed(record, found, wrap),
        *(line for block in found if verbose for line in _details(block, width)),
        *_sentences(
            [
                *machine_notes(record),
                *(item for item in ran if item.severity == "info"),
                *waiver_notes(record),
                *quiet,
                *(models if verbose else ()),
            ],
            wrap,
        ),
        *_on_demand(models, found, folded=_cases(found) - _cases(shown), verbose=verbose),
        (f"modelopt: {machine(record)}", {}),
    ]
    return [(no_command(text), markup) for text, markup in result]


def _is_new(item: Item, explained: Collection[str]) -> bool:
    """Whether a case's item is not told elsewhere already; what is not red is told here only."""
    return item.severity != "error" or item.case_id not in explained


def _verdict(record: Record, width: int) -> Iterator[Line]:
    run = run_outcome(record)
    if run.is_red:
        markup = {"red": True, "bold": True}
    elif run.headline == "passed":
        markup = {"green": True}
    else:
        markup = {"yellow": True}
    for line in _wrapped(f"modelopt: {run.headline}. {counted(record)}", width, hanging=_GAP):
        yield line, markup


# --- the base --------------------------------------------------------------------------------------------------------


def _base(record: Record, width: int) -> Iterator[Line]:
    """What head was compared with, and what became looser on the way."""
    against = record.against
    if against is None:
        return
    yield from ((line, {"bold": True}) for line in _wrapped(format_compared(against), width, hanging=_GAP))
    told = [f"LOOSENED {format_loosened(each)}" for each in against.loosened]
    markup: Markup = {"red" if record.no_loosening else "yellow": True}
    for text in [*told, format_removed(against)] if against.removed else told:
        yield from ((line, markup) for line in _wrapped(text, width, hanging=_INDENT))


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(block: Block, width: int) -> Iterator[Line]:
    yield block.title, {"bold": True}
    for line in _wrapped(f"{_GAP}{block.conditions}", max(width, _NARROWEST), hanging=2 * _GAP):
        yield line, {}
    yield from _drawn(columns_of(block, block.rows), width)


def _opened(block: Block) -> Block | None:
    """With the rows that need to be looked at; None where there are none."""
    rows = [row for row in block.rows if is_open(block, row)]
    return replace(block, rows=tuple(with_originals(block, rows))) if rows else None


def _nothing_changed(record: Record, found: Sequence[Block], width: int) -> Iterator[Line]:
    told = nothing_changed(found) if record.against is not None else ""
    if told:
        yield from ((line, {}) for line in [*_wrapped(told, width, hanging=_GAP), ""])


def _cases(found: Sequence[Block]) -> int:
    return sum(len(block.cases) for block in found)


def _details(block: Block, width: int) -> Iterator[Line]:
    columns = detail_columns(block)
    if columns:
        yield f"{block.title}: details", {"bold": True}
        for line in _wrapped(f"{_GAP}{legend(block)}", max(width, _NARROWEST), hanging=2 * _GAP):
            yield line, {}
        yield from _drawn(columns, width)


def _drawn(columns: Sequence[Column], width: int) -> Iterator[Line]:
    """One table where that fits, if need be with recipes over several lines; else several."""

    def fits(some: Sequence[Column]) -> bool:
        return all(len(text) <= width for text, _ in _grid(some))

    def laid_out(form: Callable[[str], str]) -> list[list[Column]]:
        return side_by_side([columns[0], _with_recipes(columns[1], form), *columns[2:]], fits)

    tables = laid_out(str)
    if len(tables) > 1 or not fits(tables[0]):
        tables = laid_out(_steps_apart)
    if not all(map(fits, tables)):
        tables = laid_out(_parameters_apart)
    for table in tables:
        yield from _grid(table)
        yield "", {}


def _with_recipes(column: Column, form: Callable[[str], str]) -> Column:
    return Column(column.name, tuple(map(form, column.cells)), column.alignment)


def _steps_apart(recipe: str) -> str:
    return re.sub(r" ?\+ ?(?=[a-z])", "\n+ ", recipe)


def _parameters_apart(recipe: str) -> str:
    return _steps_apart(recipe).replace("(", "\n(")


def _grid(columns: Sequence[Column]) -> list[Line]:
    # The header goes in as a row: as a header, tabulate would make each column two wider than its name.
    whole = [Column(each.name, (each.name, *each.cells), each.alignment) for each in columns]
    text = drawn(whole, "plain", with_header=False)
    header, *body = (_GAP + line.rstrip() for line in text.split("\n"))
    rule = _GAP + "-" * (max(len(line) for line in (header, *body)) - len(_GAP))
    result: list[Line] = [(header, {}), (rule, {})]
    for cells in zip(*(column.cells for column in columns), strict=True):
        height = max(cell.count("\n") for cell in cells) + 1
        result += [(line, _COLOURS.get(cells[0][:1], {})) for line in body[:height]]
        body = body[height:]
    return result


# --- sentences -------------------------------------------------------------------------------------------------------


def _sentences(told: Sequence[Item], width: int, *, verbose: bool = False) -> Iterator[Line]:
    """Each with what was found, or the next step, below it; where it is to be `verbose`, with the examples that changed
    and what the recipe reached, too."""

    def below(item: Item) -> tuple[str, ...]:
        has_all = verbose or item.label in ("ERROR", "NOTE")
        return (*item.told_below, *(item.changed if verbose else ()), *(item.why if has_all else ()))

    for item, known in each_once(told, below):
        for line in _wrapped(f"{item.label} {item.text}", width, hanging=_INDENT):
            yield line, _MARKUP[item.label]
        for each in known:
            for line in _wrapped(f"{_INDENT}{each}", width, hanging=f"{_INDENT}{_GAP}"):
                yield line, {}
        for line in _output(item.output):
            yield line, {}


def _explained(told: Sequence[Item], width: int) -> Iterator[Line]:
    """Where the red ones are explained: one address, and the heading of each case there."""
    found = ", ".join(headings(told))
    if found:
        yield from ((line, {}) for line in _wrapped(f"Explained: {TROUBLESHOOTING} ({found})", width, hanging=_INDENT))


def _output(output: Sequence[str]) -> Iterator[str]:
    hidden = max(0, len(output) - _OUTPUT_LINES)
    if output:
        yield f"{_INDENT}the worker's last output" + (f" ({hidden} more lines in the record):" if hidden else ":")
    for line in output[hidden:]:
        yield f"{_INDENT}| {line}"


def _wrapped(text: str, width: int, hanging: str) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ) or [""]


def _on_demand(models: Sequence[Item], found: Sequence[Block], *, folded: int, verbose: bool) -> Iterator[Line]:
    """That there is more, and how to see it. `folded`: cases without a row."""
    more = (
        [f"{format_count(folded, 'case')} that hold{'s' if folded == 1 else ''} and did not change"] if folded else []
    )
    more += [format_count(len(models), "note")] if models else []
    if any(detail_columns(block) for block in found):
        more.append("coverage, intervals and flips")
    if more and not verbose:
        yield f"(-v: {', '.join(more)})", {}
