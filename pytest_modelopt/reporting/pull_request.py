"""The report for a pull request: what it loosened, what it changed and what it broke; all else is folded away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_modelopt.judging.waivers import waiver_uses
from pytest_modelopt.reporting.base_summary import KINDS, format_compared, format_removed
from pytest_modelopt.reporting.base_table import FIGURES, AgainstBlock, changes, compared
from pytest_modelopt.reporting.markdown_escaping import escape
from pytest_modelopt.reporting.messages.waivers import format_waiver_use
from pytest_modelopt.reporting.notes import model_notes, run_notes
from pytest_modelopt.reporting.sections import (
    Section,
    answers_section,
    block_table,
    bullets,
    case_section,
    environment_section,
    folded,
    grid,
    run_sections,
    verdict_line,
)
from pytest_modelopt.reporting.sentences import items_by_case
from pytest_modelopt.reporting.tables import AnyBlock, AnyRow, tables
from pytest_modelopt.results.base import Against
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Record

_LOOSENED_SHOWN = 50
_WAIVERS_SHOWN = 50


def sections(record: Record, title: str) -> list[Section]:
    """The parts of the report in the order in which they are read; `record.against` must be set."""
    assert record.against is not None
    blocks = tables(record)
    ran = run_notes(record)
    open_rows = [[row for row in block.rows if _is_open(record, row)] for block in blocks]
    return [
        Section("the verdict", f"{verdict_line(record, title)}\n\n{_compared(record.against)}", 0),
        *_loosened(record.against),
        *run_sections(ran),
        *_waivers(record),
        *_nothing_changed(record, blocks),
        *_open(record, blocks, open_rows),
        *_notes("What else is known of the comparison", [item.text for item in ran if item.severity == "info"]),
        *_folded_tables(record, blocks, open_rows),
        *_folded_notes([item.text for item in model_notes(record)]),
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


def _is_open(record: Record, row: AnyRow) -> bool:
    """Whether a row is something to look at: it failed, it is undecided, it is new, or its figures changed."""
    if row.case is None:
        return False
    if row.outcome in ("error", "fail", "inconclusive", "new"):
        return True
    return _is_compared(row.case) and bool(changes(row.case, record.timed_limits))


def _is_compared(case: Case) -> bool:
    return case.base is not None and case.base.status == "compared" and case.error is None


def _nothing_changed(record: Record, blocks: Sequence[AnyBlock]) -> Iterator[Section]:
    rows = [row for block in blocks if isinstance(block, AgainstBlock) for row in block.rows]
    cases = [row.case for row in rows if _is_compared(row.case)]
    if not cases:
        yield Section("what changed", "Nothing was compared with the base.", 1)
    elif not any(changes(case, record.timed_limits) for case in cases):
        yield Section("what changed", _unchanged(cases), 1)


def _unchanged(cases: Sequence[Case]) -> str:
    known = [set(compared(case)) for case in cases]
    exact = [name for name in FIGURES if name != "latency" and any(name in names for names in known)]
    partly = [name for name in FIGURES if any(name in names for names in known) and not all(name in n for n in known)]
    same = " and ".join([", ".join(exact[:-1]), exact[-1]] if len(exact) > 1 else exact)
    told = f"Nothing changed: {len(cases)} variant{' was' if len(cases) == 1 else 's were'} compared with the base"
    if exact:
        told += f", and {'its' if len(cases) == 1 else 'their'} {same} {'is' if len(exact) == 1 else 'are'} the same"
    if any("latency" in names for names in known):
        told += "; no timing shows that one became slower or faster"
    return f"{told}. Not compared for every variant: {', '.join(partly)}." if partly else f"{told}."


def _open(record: Record, blocks: Sequence[AnyBlock], open_rows: Sequence[Sequence[AnyRow]]) -> Iterator[Section]:
    """Tables of the rows to look at, red ones first, each with what is to say about its cases."""
    shown = [(block, rows) for block, rows in zip(blocks, open_rows, strict=True) if rows]
    for block, rows in sorted(shown, key=lambda each: not each[0].is_red):
        originals = [row for row in block.rows if row.case is None]  # what the failing rows are held against
        table = block_table(block, [*originals, *rows])
        text = f"### {escape(block.title)}\n\n{escape(block.conditions)}\n\n{table}"
        yield Section(f"what changed of {block.title}", text, 1 if block.is_red else 2)
        yield from _case_sections(record, (row.case for row in rows if row.case is not None), loud=True)


def _case_sections(record: Record, cases: Iterable[Case], *, loud: bool) -> Iterator[Section]:
    """What is to say about cases: what is not kept (`loud`), or only notes."""
    parts = []
    for found in items_by_case(record, cases):
        told = [item for item in found if (item.severity != "info") == loud]
        if told:
            parts.append(case_section(told))
    yield from sorted(parts, key=lambda part: part.rank)


# --- all else, folded ------------------------------------------------------------------------------------------------


def _folded_tables(
    record: Record, blocks: Sequence[AnyBlock], open_rows: Sequence[Sequence[AnyRow]]
) -> Iterator[Section]:
    """Every table whole, with what was not said above: warnings of rows that did not change, and notes."""
    for block, opened in zip(blocks, open_rows, strict=True):
        count = sum(row.case is not None for row in block.rows)
        summary = escape(f"{block.title}: {'1 case' if count == 1 else f'all {count} cases'}")
        cases = [row.case for row in block.rows if row.case is not None]
        shown = {id(row) for row in opened}
        unopened = [row.case for row in block.rows if row.case is not None and id(row) not in shown]
        told = [*_case_sections(record, unopened, loud=True), *_case_sections(record, cases, loud=False)]
        texts = [escape(block.conditions), block_table(block, block.rows), *(part.text for part in told)]
        yield Section(f"the table of {block.title}", folded(summary, *texts), 3)
        for case in cases:
            yield from answers_section(record, case)


def _notes(title: str, told: Sequence[str]) -> Iterator[Section]:
    if told:
        yield Section(title.lower(), f"#### {title}\n\n{bullets(told)}", 2)


def _folded_notes(told: Sequence[str]) -> Iterator[Section]:
    if told:
        yield Section("notes about models", folded("Notes", bullets(told)), 3)
