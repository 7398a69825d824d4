"""The end of a run in the terminal: tables, what they do not say, what was saved, and annotations for GitHub."""

from __future__ import annotations

import os
from collections.abc import Collection

import pytest

from pytest_modelopt.plugin.session import Session
from pytest_modelopt.reporting import github_annotations, terminal
from pytest_modelopt.results.record import Record

_LOG_WIDTH = 200
_WITHOUT_TEXT = ("no", "line")
"""Values of `--tb` under which FAILURES does not hold the text of a failure."""


def print_report(
    terminalreporter: pytest.TerminalReporter,
    config: pytest.Config,
    session: Session,
    record: Record,
    explained: Collection[str],
) -> None:
    """`explained`: ids of cases that are told under FAILURES, where pytest prints these."""
    terminalreporter.section("model budgets")
    above = explained if config.getoption("tbstyle") not in _WITHOUT_TEXT else ()
    width, verbose = _width(config, terminalreporter), config.get_verbosity() > 0
    for text, markup in terminal.lines(record, width, verbose=verbose, explained=above):
        terminalreporter.write_line(text, **markup)
    if not session.compares_with_base and session.states_regression:
        terminalreporter.write_line(
            "modelopt: the limits of `regression:` were not judged: there is no base (--modelopt-against REV)"
        )
    if session.outputs is not None and session.outputs.saved:
        terminalreporter.write_line(f"modelopt: {session.outputs.saved}")
    print_problems(terminalreporter, session)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        workspace = os.environ.get("GITHUB_WORKSPACE")
        for line in github_annotations.annotations(record, workspace=workspace, rootdir=config.rootpath):
            terminalreporter.write_line(line)


def print_problems(terminalreporter: pytest.TerminalReporter, session: Session) -> None:
    """What could not be written."""
    for text in session.outputs.problems if session.outputs is not None else ():
        terminalreporter.write_line(f"modelopt: {text}", yellow=True)


def _width(config: pytest.Config, reporter: pytest.TerminalReporter) -> int:
    """Columns for the tables: a log has no width, so it gets one that holds them."""
    on_terminal = reporter.isatty or "COLUMNS" in os.environ
    return config.get_terminal_writer().fullwidth if on_terminal else _LOG_WIDTH
