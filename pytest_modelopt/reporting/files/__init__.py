"""The report as files in a folder, for artifacts and for the next run to compare with.

Each module of this package is one file of the report: its `NAME`, and `render(record)`, its text.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from pytest_modelopt.results.files.atomic_files import write_text
from pytest_modelopt.results.record import Record


class ReportFile(Protocol):
    """What a module of this package has."""

    NAME: str

    def render(self, record: Record) -> str: ...


def report_files() -> list[ReportFile]:
    """Every file of a report; the record, which all commands read, is written first."""
    names = sorted((module.name for module in pkgutil.iter_modules(__path__)), key=lambda name: name != "record")
    return [cast(ReportFile, importlib.import_module(f"{__name__}.{name}")) for name in names]


def write_report(record: Record, directory: Path) -> tuple[Path, ...]:
    """Write all files into `directory`, each whole or not at all; returns their paths."""
    found = [(directory / each.NAME, each) for each in report_files()]
    for path, each in found:
        write_text(each.render(record), path)
    return tuple(path for path, _ in found)


def remove_report(directory: Path) -> None:
    """Remove what `write_report` has written there, if anything."""
    for each in report_files():
        (directory / each.NAME).unlink(missing_ok=True)
