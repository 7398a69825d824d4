"""What a run leaves behind: the folder of its report, its page, its record as a baseline, the summary of a GitHub step.

That they can be written is looked at before anything is measured. What goes wrong later costs the run nothing but that
file: what was measured is told all the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.reporting import files, github_annotations, markdown, page
from pytest_modelopt.reporting.files.record import NAME as RECORD_NAME
from pytest_modelopt.reporting.page.templates import MissingExtra, require_jinja2
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.files.atomic_files import require_writable, write_text
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
_CHEAP_S = 0.05
"""A report that is written in this time is written after each case."""
_PAUSE = 20
"""After any other one comes a pause of so many times the time that it took, so writing takes at most a 20th of a run,
however many cases it has. What a run loses that is killed was measured in that time."""


@dataclass
class Outputs:
    """Those of one run, in the process that owns the terminal."""

    options: Options
    step_summary: Path | None
    clock: Callable[[], float] = time.monotonic
    saved: str = ""
    """What became of the baseline, in words."""
    problems: list[str] = field(default_factory=list)
    """What could not be written, a line for each."""
    _not_before: float = 0.0

    def prepare(self) -> None:
        """Remove the report of an earlier run: whatever becomes of this one, that must not pass for its own.

        Raises:
            pytest.UsageError: for what is asked for and cannot be written. Nothing is left behind.
        """
        report, save, summary = self.options.report, self.options.save, self.step_summary
        html = self.options.html
        if report is not None:
            for each in files.report_files():
                _require("--modelopt-report", report / each.NAME, require_writable, "name a folder that can be written")
        if save is not None:
            _require("--modelopt-save", save, require_writable, "name a file that can be written")
        if html is not None:
            try:
                require_jinja2()
            except MissingExtra as error:
                raise usage_error(f"--modelopt-html: {error}", "usage-output") from None
            _require("--modelopt-html", html, require_writable, "name a file that can be written")
        if summary is not None:
            _require(
                STEP_SUMMARY, summary, github_annotations.require_step_summary, "unset it where there is no such file"
            )
        if report is not None:
            files.remove_report(report)
        if html is not None:
            html.unlink(missing_ok=True)

    def update(self, record: Callable[[], Record]) -> None:
        """Write the report of what was found so far, unless it is too early for that."""
        if self.options.report is not None and self.clock() >= self._not_before:
            self._write_report(record(), self.options.report)

    def finish(self, record: Record) -> None:
        """Write all that was asked for; `saved` and `problems` say what became of it."""
        self.problems.clear()
        if self.options.report is not None:
            self._write_report(record, self.options.report)
        if self.options.save is not None:
            self._save(record, self.options.save)
        if self.options.html is not None:
            with self._survived("the page (--modelopt-html)", self.options.html):
                write_text(page.render(record), self.options.html)
        if self.step_summary is not None:
            with self._survived(f"the step summary ({STEP_SUMMARY})", self.step_summary):
                github_annotations.append_step_summary(self.step_summary, markdown.render(record))

    def _write_report(self, record: Record, folder: Path) -> None:
        start = self.clock()
        with self._survived("the report", folder):
            files.write_report(record, folder)
            written = folder / RECORD_NAME
            if written.stat().st_size > record_json.MAX_BYTES:
                most = record_json.MAX_BYTES // 1024**2
                self.problems.append(f"no command reads {written}, which is larger than {most} MiB: run fewer cases")
        end = self.clock()
        self._not_before = end + (_PAUSE * (end - start) if end - start > _CHEAP_S else 0.0)

    def _save(self, record: Record, file: Path) -> None:
        why_not = _why_not_saved(record)
        if why_not:
            self.saved = f"the record was not saved as {file}: {why_not}"
            return
        with self._survived("the baseline (--modelopt-save)", file):
            record_json.write(record, file)
            self.saved = f"the record was saved as {file}"

    @contextlib.contextmanager
    def _survived(self, what: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problems.append(f"{what} could not be written: {_format_error(error, path)}")


def _require(what: str, path: Path, is_writable: Callable[[Path], None], remedy: str) -> None:
    try:
        is_writable(path)
    except OSError as error:
        raise usage_error(f"{what}: {_format_error(error, path)}; {remedy}", "usage-output") from None


def _format_error(error: OSError, path: Path) -> str:
    return f"{error.filename or path}: {error.strerror or error}"


def _why_not_saved(record: Record) -> str:
    """A baseline that lacks cases, or holds errors, would make them look new or whole to later runs."""
    run = run_outcome(record)
    if not record.complete or run.never_ran:
        return "the run did not come to its end"
    if run.is_partial or not record.cases:
        return run.headline
    in_error = [case.name for case in record.cases if case.error is not None]
    return f"there are errors in it ({', '.join(in_error[:3])})" if in_error else ""
