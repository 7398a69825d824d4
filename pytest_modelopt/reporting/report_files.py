"""The report as files in a folder, for artifacts and for the next run to compare with."""

from __future__ import annotations

from pathlib import Path

from pytest_modelopt.results.atomic_files import write_text
from pytest_modelopt.results.record import Record

RECORD_NAME = "record.json"
SUMMARY_NAME = "summary.md"
METRICS_NAME = "metrics.txt"
NAMES = (RECORD_NAME, SUMMARY_NAME, METRICS_NAME)


def write_report(record: Record, directory: Path) -> tuple[Path, Path, Path]:
    """Write record.json, summary.md and metrics.txt into `directory`, each whole or not at all; returns their paths."""
    from pytest_modelopt.reporting import markdown, openmetrics
    from pytest_modelopt.results import json as record_json

    record_path, summary_path, metrics_path = (directory / name for name in NAMES)
    record_json.write(record, record_path)
    write_text(markdown.render(record), summary_path)
    write_text(openmetrics.render(record), metrics_path)
    return record_path, summary_path, metrics_path


def remove_report(directory: Path) -> None:
    """Remove what `write_report` has written there, if anything."""
    for name in NAMES:
        (directory / name).unlink(missing_ok=True)
