"""An engine that runs each job on this machine, in a copy of the project, and loses those that it is told to lose."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_modelopt.fleet.engine import EngineError, Machine, Told
from pytest_modelopt.fleet.job import Event, Job, run_job
from pytest_modelopt.fleet.project import Project, place
from pytest_modelopt.results.target import Fingerprint


@dataclass
class EngineHere:
    """Jobs run one after the other, each by a process of its own."""

    copy: Path
    project: Project
    loses: dict[tuple[str, int], int] = field(default_factory=dict)
    """By the name of a job and its attempt, from 1: after how many reports, of tests or of trials, it is lost."""
    architectures: tuple[str, ...] = ()
    """Of the machines that there are, each with that as its id. A job runs with it as `MACHINE` in its environment."""
    refuses: int = 0
    """The number of the submission that it refuses, from 1."""
    submitted: list[tuple[Job, Machine | None]] = field(default_factory=list)
    reports: int = 0

    def __post_init__(self) -> None:
        self.copy.mkdir()
        self.project.stage(self.copy)
        by_content = {digest: path for path, digest in self.project.large.items()}
        place(self.copy, lambda digest: (self.project.root / by_content[digest]).read_bytes())
        self._waiting: list[tuple[Job, Machine]] = []
        self._events: Generator[Event, None, None] | None = None

    def machines(self, ask: Callable[[], Fingerprint]) -> list[tuple[Machine, Fingerprint]]:
        here = ask()
        return [(Machine(each, each), replace(here, architecture=each)) for each in self.architectures]

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        number = job.machines[0] if job.machines else str(1 + len(self.submitted))
        self.submitted.append((job, avoid))
        if len(self.submitted) == self.refuses:
            raise EngineError("the partition is full")
        self._waiting.append((job, Machine(number, f"machine {number}")))

    def told(self, wait_s: float) -> Iterator[Told]:
        if not self._waiting:
            return
        job, machine = self._waiting[0]
        if self._events is None:
            os.environ["MACHINE"] = machine.id
            self._events, self.reports = run_job(job, self.copy), 0
        attempt = sum(each.name == job.name for each, _ in self.submitted)
        if self.reports == self.loses.get((job.name, attempt), -1):
            self._end()
            yield Told(job, {}, machine, lost="its machine was switched off")
            return
        try:
            event = next(self._events)
        except StopIteration:
            self._end()
            return
        self.reports += bool(event.keys() & {"report", "trial"})
        yield Told(job, event, machine)

    def _end(self) -> None:
        assert self._events is not None
        self._events.close()
        self._events = None
        self._waiting.pop(0)

    def close(self) -> None:
        if self._events is not None:
            self._end()
        self._waiting.clear()
