"""The report as files in a folder, for artifacts and for the next run to compare with."""

from __future__ import annotations

from pathlib import Path

from pytest_modelopt.record.atomic import write_text
from pytest_modelopt.record.model import Record

RECORD_NAME = "record.json"
SUMMARY_NAME = "summary.md"


def write_report(record: Record, directory: Path) -> tuple[Path, Path]:
    """Write record.json and summary.md into `directory`, each whole or not at all, and return their paths."""
    from pytest_modelopt.record import json as record_json
    from pytest_modelopt.report import markdown

    record_path, summary_path = directory / RECORD_NAME, directory / SUMMARY_NAME
    record_json.write(record, record_path)
    write_text(markdown.render(record), summary_path)
    return record_path, summary_path
