"""pytest within a job of a fleet: it runs the job's tests and tells each report. Loaded by `-p`, there only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.fleet.job import EVENTS, FOLDER, TESTS
from pytest_modelopt.plugin.collecting.collection import test_id
from pytest_modelopt.plugin.keys import JOB
from pytest_modelopt.plugin.usage_errors import usage_error

_folder = os.environ.pop(FOLDER, "")  # no pytest that a test starts takes itself for the job's
_started_by = os.dup(0) if _folder else None  # pytest puts another standard input in its place


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not _folder:
        raise usage_error(f"{__name__} is loaded by jobs of a fleet only: take `-p {__name__}` away", "usage-fleet")
    config.stash[JOB] = True
    config.pluginmanager.register(_Job(config, Path(_folder)), "modelopt-fleet-job")
    threading.Thread(target=_end_with_whoever_started_us, daemon=True).start()


def _end_with_whoever_started_us() -> None:
    """That process holds the other end of standard input, which ends however it does. SIGTERM ends workers, too."""
    assert _started_by is not None
    with contextlib.suppress(OSError):
        while os.read(_started_by, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Job:
    """The job that the folder describes."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config = config
        self._tests: list[str] = json.loads((folder / TESTS).read_text(encoding="utf-8"))
        self._events = folder / EVENTS

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Those of the job, in its order: all others were counted before."""
        found = {test_id(item): item for item in items}
        missing = [test for test in self._tests if test not in found]
        if missing:
            self._tell({"missing": missing})
        wanted = [found[test] for test in self._tests if test in found]
        kept = set(map(id, wanted))
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = wanted

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._tell({"report": data})

    def _tell(self, event: dict[str, Any]) -> None:
        with self._events.open("a", encoding="utf-8") as events:
            events.write(json.dumps(event, default=str) + "\n")
