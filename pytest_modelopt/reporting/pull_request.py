"""The report for a pull request: what it loosened, what it changed and what it broke; all else is folded away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_modelopt.judging.waivers import waiver_uses
from pytest_modelopt.reporting.base_summary import KINDS, format_compared, format_removed
from pytest_modelopt.reporting.changes import is_open, nothing_changed, with_originals
from pytest_modelopt.reporting.figure_columns import columns_of
from pytest_modelopt.reporting.markdown_escaping import escape
from pytest_modelopt.reporting.messages.waivers import format_waiver_use
from pytest_modelopt.reporting.notes import machine_notes, model_notes, run_notes
from pytest_modelopt.reporting.sections import (
    Section,
    answers_section,
    block_text,
    bullets,
    case_sections,
    details_section,
    environment_section,
    folded,
    folded_notes,
    grid,
    notes_section,
    run_sections,
    table_text,
    verdict_line,
)
from pytest_modelopt.reporting.table import Block, Row, blocks
from pytest_modelopt.results.base import Against
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Record

_LOOSENED_SHOWN = 50
_WAIVERS_SHOWN = 50


def sections(record: Record, title: str) -> list[Section]:
    """The parts of the report in the order in which they are read; `record.against` must be set."""
    assert record.against is not None
    found, ran = sorted(blocks(record), key=lambda block: not block.is_red), run_notes(record)
    shown = [[row for row in block.rows if is_open(block, row)] for block in found]
    opened = [row.case for rows in shown for row in rows if row.case is not None]
    return [
        Section("the verdict", f"{verdict_line(record, title)}\n\n{_compared(record.against)}", 0),
        *_loosened(record.against),
        *run_sections(ran),
        *case_sections(record, record.cases, "error"),
        *_waivers(record),
        *_nothing_changed(found),
        *_open(found, shown),
        *case_sections(record, opened, "warning"),
        *notes_section([item.text for item in machine_notes(record)]),
        *notes_section([item.text for item in ran if item.severity == "info"], "What else is known of the comparison"),
        *_folded_tables(record, found, opened),
        *folded_notes([item.text for item in model_notes(record)]),
        *environment_section(record),
    ]


def _compared(against: Against) -> str:
    told = format_compared(against)
    return escape(f"{told[:1].upper()}{told[1:]}.")


# --- what was loosened -----------------------------------------------------------------------------------------------


def _loosened(against: Against) -> Iterator[Section]:
    count = len(against.loosened)
    if count:
        rows = [
            [escape(cell) for cell in (each.case, each.limit, KINDS[each.kind], each.old, each.new, each.by)]
            + [escape(f"{each.file}:{each.line}")]
            for each in against.loosened[:_LOOSENED_SHOWN]
        ]
        headers = ("case", "limit", "what", "base", "head", "by", "where")
        title = f"#### {count} limit{' is' if count == 1 else 's are'} less strict than at the base"
        more = [f"and {count - len(rows)} more in the record"] if count > len(rows) else []
        # The title is kept whatever the table holds: long reasons must not hide that there is something to look at.
        yield Section("how much was loosened", title, 0)
        table = grid(headers, rows, ("left",) * len(headers))
        yield Section("what was loosened", "\n\n".join([table, *more]), 1)
    if against.removed:
        yield Section("removed cases", f"**{escape(format_removed(against))}**", 1)


def _waivers(record: Record) -> Iterator[Section]:
    """Those that let something pass, and those that can go; one that helps nothing stands with its red limit."""
    told = [format_waiver_use(use) for use in waiver_uses(record) if use.state in ("used", "unused")]
    if told:
        more = [f"and {len(told) - _WAIVERS_SHOWN} more in the record"] if len(told) > _WAIVERS_SHOWN else []
        text = "\n\n".join(["#### Waivers", bullets(told[:_WAIVERS_SHOWN]), *more])
        yield Section("waivers", text, 2)


# --- what changed or failed ------------------------------------------------------------------------------------------


def _nothing_changed(found: Sequence[Block]) -> Iterator[Section]:
    if told := nothing_changed(found):
        yield Section("what changed", told, 1)


def _open(found: Sequence[Block], shown: Sequence[Sequence[Row]]) -> Iterator[Section]:
    """Tables of the rows to look at, with the original that those are held against."""
    for block, rows in zip(found, shown, strict=True):
        if rows:
            text = block_text(block, with_originals(block, rows))
            yield Section(f"what changed of {block.title}", text, 1 if block.is_red else 2)


# --- all else, folded ------------------------------------------------------------------------------------------------


def _folded_tables(record: Record, found: Sequence[Block], opened: Sequence[Case]) -> Iterator[Section]:
    """Every table whole with its details, and what was not said above: warnings of rows that did not change, notes."""
    shown = {id(case) for case in opened}
    for block in found:
        count = len(block.cases)
        summary = escape(f"{block.title}: {'1 case' if count == 1 else f'all {count} cases'}")
        told = [
            *case_sections(record, [case for case in block.cases if id(case) not in shown], "warning"),
            *case_sections(record, block.cases, "info"),
        ]
        table = table_text(columns_of(block, block.rows))
        text = folded(summary, escape(block.conditions), table, *(part.text for part in told))
        yield Section(f"the table of {block.title}", text, 3)
        yield from details_section(block)
        for case in block.cases:
            yield from answers_section(record, case)
