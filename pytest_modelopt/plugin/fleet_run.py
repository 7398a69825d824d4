"""A run whose tests that measure are placed on a fleet; pytest reports them here, as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import pytest

from pytest_modelopt.fleet.engine import Cluster, Engine, EngineError, Machine, Told
from pytest_modelopt.fleet.job import AGAIN, ROOT, Job, carried_environment, with_root
from pytest_modelopt.fleet.placement import places
from pytest_modelopt.fleet.project import Project, ProjectError
from pytest_modelopt.plugin.attached_cases import attach
from pytest_modelopt.plugin.collecting.collection import CaseItem, is_gated, test_id, unmeasured
from pytest_modelopt.plugin.fleet_reports import PlacedTest
from pytest_modelopt.plugin.resuming import keep_whole, travelling
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.target import Fingerprint, is_for

_PLUGIN = "pytest_modelopt.plugin.fleet_job"
_ELSEWHERE = (
    "the project is another one there: compare what it finds outside of its folder, such as installed packages, "
    "environment variables and what `modelopt_fleet_exclude` leaves here"
)
_LOST = "look for what ends processes there (too little memory, a time limit), or measure it on another machine"
_MINE = tuple(f"--modelopt-{name}" for name in ("ray", "slurm", "resume", "report", "html", "save"))
"""Options of the process that reports, which a job's pytest is not given."""


class FleetRun:
    """Registered beside the gate. Tests that measure nothing run here, as without it."""

    def __init__(self, config: pytest.Config, session: Session, cluster: Cluster) -> None:
        """Raises pytest.UsageError for what does not go together with a fleet."""
        self._config, self._session = config, session
        self._cluster, self._option = cluster, f"--modelopt-{cluster.engine}"
        self._tests: dict[str, PlacedTest] = {}
        """By node id, those that have not been reported."""
        self._lost: dict[str, int] = {}
        try:
            cluster.require(config.rootpath)
        except EngineError as error:
            raise usage_error(f"{self._option}: {error}", "usage-fleet") from None
        for option, why in (
            ("numprocesses", "-n: pytest-xdist would place the tests, too"),
            ("--modelopt-against", "--modelopt-against: the base is checked out on this machine only"),
        ):
            if config.getoption(option, None):
                raise usage_error(
                    f"{self._option} does not go together with {why}; take one of them away", "usage-fleet"
                )
        if not config.invocation_params.dir.is_relative_to(config.rootpath):
            raise usage_error(
                f"{self._option}: pytest was called in {config.invocation_params.dir}, outside of the project at "
                f"{config.rootpath}, which alone travels: call it within, or name the project by --rootdir",
                "usage-fleet",
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed or session.config.option.collectonly:
            return None  # as pytest tells it
        from pytest_modelopt.optimizing.this_machine import fingerprint

        gated = [item for item in session.items if is_gated(item)]
        if not gated:
            return None
        with self._usable_cluster():
            engine = self._engine()
        try:
            with self._usable_cluster():
                machines = engine.machines(fingerprint) if self._session.targets else []
                keep_whole(self._session, gated, machines)
                placed = [item for item in gated if test_id(item) not in self._session.resumed]
                for job in self._made_jobs(placed, machines):
                    engine.submit(job)
            here = [item for item in session.items if test_id(item) not in self._tests]
            for item, following in zip_longest(here, here[1:]):
                self._config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                self._stop(session)
                self._take(engine, session, wait_s=0.0)
            while self._tests:
                self._take(engine, session, wait_s=0.2)
        finally:
            engine.close()
        return True

    # --- what travels ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _usable_cluster(self) -> Iterator[None]:
        """A cluster that cannot be used ends the run before anything is measured."""
        try:
            yield
        except (ProjectError, EngineError) as error:
            raise usage_error(f"{self._option} {self._cluster.place}: {error}", "usage-fleet") from None

    def _engine(self) -> Engine:
        """Raises ProjectError and EngineError."""
        return self._cluster.connect(self._project())

    def _project(self) -> Project:
        """Raises ProjectError."""
        project = travelling(self._config, self._session)
        self._session.project = project.digest
        return project

    def _made_jobs(self, items: Sequence[pytest.Item], machines: Sequence[tuple[Machine, Fingerprint]]) -> list[Job]:
        """Cases of one model on one device are one job, whose original is measured once, and tests of one file; on each
        place where a target wants them."""
        root = self._config.rootpath
        groups: dict[tuple[str, str], list[str]] = {}
        for item in items:
            self._tests[test_id(item)] = PlacedTest(item)
            of_model = (item.entry.model.name, item.entry.workload.device) if isinstance(item, CaseItem) else None
            groups.setdefault(of_model or (item.nodeid.partition("::")[0], ""), []).append(test_id(item))
        arguments = (with_root(text, root) for text in self._arguments())
        command = ("pytest", "-p", _PLUGIN, *arguments, f"--rootdir={ROOT}")
        folder = self._config.invocation_params.dir.relative_to(root).as_posix()
        environment = carried_environment(root)
        targets = self._session.targets
        jobs = []
        for (name, device), tests in groups.items():
            for place in places(machines, [target for target in targets if not device or is_for(target, device)]):
                on = f" on {' and '.join(place.targets)}" if place.targets else ""
                job = Job(name + on, tuple(tests), command, folder, environment, device.startswith("cuda"))
                jobs.append(replace(job, machines=place.machines))
                for test in tests:
                    self._tests[test].waiting.add(job.name)
        return jobs

    def _arguments(self) -> list[str]:
        """Of pytest's command line, so that a job collects what this process did: a limit's share of the error depends
        on all that there are. Those of this process alone go."""
        kept: list[str] = []
        given = iter(map(str, self._config.invocation_params.args))
        for text in given:
            name, has_value, _ = text.partition("=")
            if name not in _MINE:
                kept.append(text)
            elif not has_value:
                next(given, None)
        return kept

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _take(self, engine: Engine, session: pytest.Session, wait_s: float) -> None:
        for told in engine.told(wait_s):
            if told.lost:
                self._again(engine, told)
            elif "report" in told.event:
                self._phase(told.job, told.event["report"])
            elif "missing" in told.event:
                for test in told.event["missing"]:
                    self._fail(told.job, test, f"pytest{told.on_machine} did not collect it: {_ELSEWHERE}")
            elif "end" in told.event:
                self._ended(engine, told)
            self._stop(session)

    def _phase(self, job: Job, data: dict[str, Any]) -> None:
        """A report of one phase; those of a test are told together, once it has come to its end everywhere."""
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        test = self._tests.get(report.nodeid)
        if test is not None:
            test.take(job.name, report)
            self._report(report.nodeid)

    def _report(self, test: str) -> None:
        if not self._tests[test].waiting:
            self._tests.pop(test).report(self._config, self._session)

    def _ended(self, engine: Engine, told: Told) -> None:
        """Its pytest has ended: each of its tests was told, unless it was killed or could not run."""
        status, output = told.event["end"], told.event["output"]
        if not self._left(told.job):
            return
        if status < 0:
            self._again(engine, Told(told.job, {}, told.machine, lost=f"its pytest was ended by signal {-status}"))
            return
        for test in self._left(told.job):
            ended = f"pytest{told.on_machine} ended with status {status} before this test"
            self._fail(told.job, test, f"{ended}, and told:\n{output}")

    def _again(self, engine: Engine, told: Told) -> None:
        """A job that is lost runs again elsewhere, without the tests that came to their end."""
        left = self._left(told.job)
        if not left:
            return
        for test in left:
            self._tests[test].begun.pop(told.job.name, None)
        times = self._lost[told.job.name] = self._lost.get(told.job.name, 0) + 1
        what = f"{told.job.name} was lost{told.on_machine} ({told.lost})"
        if times > AGAIN:
            for test in left:
                self._fail(told.job, test, f"{what}, for the {times}rd time, so it is not tried again: {_LOST}")
            return
        note = f"{what}: {format_count(len(left), 'test')} of it run again ({times} of {AGAIN})"
        self._session.notes.append(note)
        if (reporter := self._config.pluginmanager.getplugin("terminalreporter")) is not None:
            reporter.ensure_newline()
            reporter.write_line(f"modelopt: {note}", yellow=True)
        done = [test for test in told.job.items if test not in left]
        try:
            engine.submit(told.job.without(done), avoid=told.machine)
        except EngineError as error:
            for test in left:
                self._fail(told.job, test, f"{what}, and cannot be run again: {error}")

    def _left(self, job: Job) -> list[str]:
        return [test for test in job.items if test in self._tests and job.name in self._tests[test].waiting]

    def _fail(self, job: Job, test: str, why: str) -> None:
        """Report a test that no machine has run."""
        placed = self._tests[test]
        item = placed.item
        report = pytest.TestReport(item.nodeid, item.location, {item.name: 1}, "failed", why, "call")
        attach(report, test, unmeasured(item, self._session), [], None, None, is_explained=False)
        placed.end(job.name, [report])
        self._report(test)

    @staticmethod
    def _stop(session: pytest.Session) -> None:
        """As pytest's own loop does after each test."""
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
