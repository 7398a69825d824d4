"""Cases on pytest's reports, on which they travel from the process that measured to the one that owns the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.plugin.collecting.collection import in_one_line, unknown
from pytest_modelopt.plugin.ended_tests import Report
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import case_from_data, case_to_data, environment_from_data, environment_to_data
from pytest_modelopt.results.record import Environment

_PACKAGE = Path(__file__).parents[1]
_PYTEST = Path(pytest.__file__).parents[1] / "_pytest"


def attach(
    report: pytest.TestReport,
    test: str,
    before: Case | None,
    cases: Sequence[Case],
    environment: Environment | None,
    plan: dict[str, Any] | None,
    *,
    is_explained: bool,
) -> None:
    """Put on the report, in plain types: the test's node id, its case before it was measured, its cases, what the
    process of pytest-xdist plans to run, and whether the report's text says all that makes the cases red."""
    report.modelopt = {  # type: ignore[attr-defined]
        "test": test,
        "unmeasured": before and case_to_data(before),
        "cases": [case_to_data(case) for case in cases],
        "environment": environment and environment_to_data(environment),
        "plan": plan,
        "is_explained": is_explained,
    }


def shorten(
    report: pytest.TestReport, call: pytest.CallInfo[None], item: pytest.Item, cases: Sequence[Case], session: Session
) -> bool:
    """Let pytest's short summary, and the message in JUnit, name what is broken in one line; whether they do. The whole
    text stands under FAILURES. Where our code failed the test, the place is that line of the test which called it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if call.excinfo is None or crash is None or not report.failed:
        return False
    line = in_one_line(call.excinfo.value, cases, session)
    crash.message = line or crash.message
    if isinstance(call.excinfo.value, pytest.fail.Exception):
        entries = [each for each in call.excinfo.traceback if not Path(each.path).is_relative_to(_PYTEST)]
        if entries and Path(entries[-1].path).is_relative_to(_PACKAGE):
            file, start, _ = item.location
            lines = [each.lineno for each in entries if each.path == item.path]
            crash.message = crash.message.removeprefix("Failed: ")
            crash.path, crash.lineno = file, 1 + (lines[-1] if lines else start or 0)
    return bool(line)


def _attached(report: pytest.TestReport) -> dict[str, Any] | None:
    data: dict[str, Any] | None = getattr(report, "modelopt", None)
    return data


def attached_plan(report: pytest.TestReport) -> dict[str, Any] | None:
    data = _attached(report)
    plan: dict[str, Any] | None = None if data is None else data["plan"]
    return plan


def is_explained(report: pytest.TestReport) -> bool:
    """Whether pytest shows under FAILURES all that makes the report's cases red."""
    data = _attached(report)
    return data is not None and bool(data["is_explained"])


def forget(report: pytest.TestReport) -> None:
    """Take from the report what was read of it: pytest keeps all reports to the end, and the session has the cases."""
    if _attached(report) is not None:
        del report.modelopt


def read_report(report: pytest.TestReport, session: Session) -> Report:
    """Read pytest's report of a test's phase. For a worker that crashed, pytest-xdist makes one with nothing on it."""
    data = _attached(report)
    expected = getattr(report, "wasxfail", None)
    crash = getattr(report.longrepr, "reprcrash", None)
    message = f"{crash.message} ({crash.path}:{crash.lineno})" if crash is not None else report.longreprtext
    if report.failed and message.startswith("[XPASS(strict)]"):
        message = f"{message.strip()}: the test passes, though it is expected to fail: remove its mark"
    if data is None:
        is_crash = report.when not in ("setup", "call", "teardown")  # told by pytest-xdist, maybe before any plan was
        is_ours = report.nodeid in session.planned or (is_crash and not session.collected)
        lost = unknown(report.nodeid, session) if report.failed and is_ours else None
        return Report(report.nodeid, "crash", report.outcome, message, expected, lost, (), session.options.strict)
    return Report(
        test=data["test"],
        phase=report.when or "crash",
        outcome=report.outcome,
        message=message,
        expected=expected,
        unmeasured=data["unmeasured"] and case_from_data(data["unmeasured"]),
        cases=[case_from_data(case) for case in data["cases"]],
        strict=session.options.strict,
        environment=data["environment"] and environment_from_data(data["environment"]),
    )
