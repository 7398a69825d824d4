"""The report as GitHub Markdown: of a run, and in another order of what a pull request changed."""

from __future__ import annotations

from pytest_modelopt.reporting import pull_request
from pytest_modelopt.reporting.notes import machine_notes, model_notes, run_notes, waiver_notes
from pytest_modelopt.reporting.sections import (
    LIMIT_BYTES,
    TITLE,
    Section,
    answers_section,
    block_text,
    case_sections,
    details_section,
    environment_section,
    fit,
    folded_notes,
    notes_section,
    run_sections,
    verdict_line,
)
from pytest_modelopt.reporting.sentences import items_by_case
from pytest_modelopt.reporting.table import Block, blocks
from pytest_modelopt.results.record import Record


def render(record: Record, limit: int = LIMIT_BYTES, title: str = TITLE) -> str:
    """The whole report: the verdict first; what failed, or was changed by a pull request; then everything else.

    `title`, a plain text, is what the verdict is of. The report's UTF-8 form has at most `limit` bytes; sections that
    do not fit are left out, failures last, and named.
    """
    return fit(_of_run(record, title) if record.against is None else pull_request.sections(record, title), limit)


def _of_run(record: Record, title: str) -> list[Section]:
    """The verdict, what is not kept, the tables, and all else folded, in the order of reading."""
    ran, found = run_notes(record), sorted(blocks(record), key=lambda block: not block.is_red)
    quiet = [item.text for told in items_by_case(record, record.cases) for item in told if item.severity == "info"]
    waivers = [item.text for item in waiver_notes(record)]
    return [
        Section("the verdict", verdict_line(record, title), 0),
        *run_sections(ran),
        *case_sections(record, record.cases, "error", "warning"),
        *(_table(block) for block in found),
        *notes_section([*(item.text for item in machine_notes(record)), *waivers, *quiet]),
        *(part for block in found for part in details_section(block)),
        *(part for block in found for case in block.cases for part in answers_section(record, case)),
        *folded_notes([item.text for item in (*ran, *model_notes(record)) if item.severity == "info"]),
        *environment_section(record),
    ]


def _table(block: Block) -> Section:
    return Section(f"the table of {block.title}", block_text(block, block.rows), 1 if block.is_red else 3)
