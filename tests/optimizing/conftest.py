"""One thread, torch's own remark on nested tensors kept quiet, and no test that skips because something is missing."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_modelopt.optimizing import cpu_flags


@pytest.fixture
def any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every CPU casts rightly, however slowly: what is tested under it is not refused."""
    monkeypatch.setattr(cpu_flags, "has_all_of_one", lambda alternatives: True)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For every test of recipes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "optimizing" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every extra is installed where these tests run: `importorskip` would turn a broken environment green."""
    report = yield
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    if report.skipped and ("could not import" in reason or "install" in reason):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which hides that something is not installed: {reason}"
    return report
