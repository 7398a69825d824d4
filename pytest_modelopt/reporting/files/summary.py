"""The report as Markdown, as the step summary shows it."""

from __future__ import annotations

from pytest_modelopt.reporting import markdown
from pytest_modelopt.results.record import Record

NAME = "summary.md"


def render(record: Record) -> str:
    """The Markdown text of the record."""
    return markdown.render(record)
