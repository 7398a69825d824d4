"""The report as GitHub Markdown: of a run, and in another order of what a pull request changed."""

from __future__ import annotations

from pytest_modelopt.reporting import pull_request
from pytest_modelopt.reporting.notes import notes
from pytest_modelopt.reporting.sections import (
    LIMIT_BYTES,
    TITLE,
    Section,
    answers_section,
    block_text,
    bullets,
    case_sections,
    environment_section,
    fit,
    run_sections,
    verdict_line,
)
from pytest_modelopt.reporting.tables import tables
from pytest_modelopt.results.record import Record


def render(record: Record, limit: int = LIMIT_BYTES, title: str = TITLE) -> str:
    """The whole report: the verdict first; what failed, or was changed by a pull request; then everything else.

    `title`, a plain text, is what the verdict is of. The report's UTF-8 form has at most `limit` bytes; sections that
    do not fit are left out, failures last, and named.
    """
    return fit(_of_run(record, title) if record.against is None else pull_request.sections(record, title), limit)


def _of_run(record: Record, title: str) -> list[Section]:
    """The verdict, then failing models, other models, notes, and the environment, in the order of reading."""
    parts = [Section("the verdict", verdict_line(record, title), 0)]
    for block in sorted(tables(record), key=lambda block: not block.is_red):
        parts.append(Section(f"the table of {block.title}", block_text(block), 1 if block.is_red else 3))
        cases = [row.case for row in block.rows if row.case is not None]
        parts += case_sections(record, cases)
        parts += [part for case in cases for part in answers_section(record, case)]
    told = notes(record)
    parts += run_sections(told)
    remarks = [item.text for item in told if item.severity == "info"]
    if remarks:
        parts.append(Section("notes about models", "\n\n".join(["#### Notes", bullets(remarks)]), 3))
    return [*parts, *environment_section(record)]
