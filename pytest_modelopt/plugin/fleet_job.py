"""pytest within a job of a fleet: it runs the job's tests and tells each report. Loaded by `-p`, there only."""

from __future__ import annotations

import pytest

from pytest_modelopt.fleet.job import JobHere
from pytest_modelopt.plugin.collecting.collection import test_id
from pytest_modelopt.plugin.keys import JOB
from pytest_modelopt.plugin.usage_errors import usage_error

_here = JobHere.take()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if _here is None:
        raise usage_error(f"{__name__} is loaded by jobs of a fleet only: take `-p {__name__}` away", "usage-fleet")
    config.stash[JOB] = True
    config.pluginmanager.register(_Job(config, _here), "modelopt-fleet-job")
    _here.end_with_whoever_started_us()


class _Job:
    """The tests of the job."""

    def __init__(self, config: pytest.Config, here: JobHere) -> None:
        self._config, self._here = config, here

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Those of the job, in its order: all others were counted before."""
        found = {test_id(item): item for item in items}
        missing = [test for test in self._here.items if test not in found]
        if missing:
            self._here.tell({"missing": missing})
        wanted = [found[test] for test in self._here.items if test in found]
        kept = set(map(id, wanted))
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = wanted

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._here.tell({"report": data})
