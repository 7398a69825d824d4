"""Tests of a fleet that have not come to their end: what their jobs have told, until one report can say it all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from pytest_modelopt.plugin.attached_cases import read_report
from pytest_modelopt.plugin.session import Session

Phases = list[pytest.TestReport]


@dataclass
class PlacedTest:
    """One test, which runs in a job on each place."""

    item: pytest.Item
    waiting: set[str] = field(default_factory=set)
    """Names of its jobs that have not ended it."""
    begun: dict[str, Phases] = field(default_factory=dict)
    """By job: of one that is lost, these count for nothing."""
    ended: dict[str, Phases] = field(default_factory=dict)

    def take(self, job: str, report: pytest.TestReport) -> None:
        """A report of one phase."""
        phases = self.begun.setdefault(job, [])
        phases.append(report)
        if report.when == "teardown" and job in self.waiting:
            self.end(job, self.begun.pop(job))

    def end(self, job: str, phases: Phases) -> None:
        """What the test came to in one of its jobs."""
        self.waiting.discard(job)
        self.ended[job] = phases

    def report(self, config: pytest.Config, session: Session) -> None:
        """Let pytest report the test once: as it failed, if anywhere, with what it came to elsewhere."""
        hook = config.hook
        name = max(self.ended, key=lambda each: _rank(self.ended[each]))
        told, location = self.ended[name], self.item.location
        others = {each: phases for each, phases in self.ended.items() if each != name}
        for report in told:
            if report.failed:
                report.sections += [
                    (f"also failed: {each}", other.longreprtext)
                    for each, phases in others.items()
                    for other in phases
                    if other.failed
                ]
        hook.pytest_runtest_logstart(nodeid=self.item.nodeid, location=location)
        for index, report in enumerate(told):
            hook.pytest_runtest_logreport(report=report)
            if index == 0:
                _take(session, (each for phases in others.values() for each in phases))
        hook.pytest_runtest_logfinish(nodeid=self.item.nodeid, location=location)


def _rank(phases: Phases) -> int:
    """A failure says more than a pass, and that more than a skip."""
    outcomes = {report.outcome for report in phases}
    return 2 if "failed" in outcomes else 0 if "skipped" in outcomes else 1


def _take(session: Session, reports: Iterable[pytest.TestReport]) -> None:
    """The cases and failures of other machines, as more of the same test: a set-up would begin it anew."""
    for each in reports:
        found = read_report(each, session)
        if found.cases or found.outcome == "failed":
            session.take(replace(found, phase="call" if found.phase == "setup" else found.phase))
