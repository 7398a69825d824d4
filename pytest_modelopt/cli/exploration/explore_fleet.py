"""Candidates that machines of a fleet measure side by side, all but their times."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt import __version__
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.cli.shared.progress_line import show
from pytest_modelopt.exploring.cache import Cache, packed, unpacked
from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.fleet.engine import Cluster, Engine, EngineError, Machine, Told
from pytest_modelopt.fleet.job import AGAIN, Job, carried_environment, with_root
from pytest_modelopt.fleet.project import ProjectError, read_project
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.target import Fingerprint

if TYPE_CHECKING:
    from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch

_MODULE = "pytest_modelopt.cli.exploration.explore_job"
_WAIT_S = 0.2
_START_S = 60.0
"""Within which a machine that is free has begun with a job: the project travels, and processes start."""


def to_event(trial: Trial) -> dict[str, Any]:
    """A trial as a job tells it."""
    assert trial.case is not None
    told = {"recipe": trial.recipe.text, "case": packed(trial.case, __version__, None), "why": trial.why}
    return {"trial": {**told, "is_out_early": trial.is_out_early, "drop_seen": trial.drop_seen}}


def _trial_of(recipe: Expression, told: dict[str, Any]) -> Trial | None:
    """The trial that a job has sent; None where the event holds no measurement of this recipe."""
    case = unpacked(told["case"])
    if case is None or case.recipe != recipe.text:
        return None
    return Trial(recipe, 0, case, told["why"], is_out_early=told["is_out_early"], drop_seen=told["drop_seen"])


@dataclass
class Fleet:
    """The jobs of one exploration: each measures some of the candidates, and the original before them."""

    watch: Watch
    cache: Cache
    engine: Engine | None = None
    _waiting: set[str] = field(default_factory=set)
    """Texts of recipes that a job is to measure."""
    _told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The events of measured trials, by the text of their recipe."""
    _keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """The model, data, versions and machine of each job, by its name (`exploring.cache.key_of`)."""
    _lost: dict[str, int] = field(default_factory=dict)
    _job_of: dict[str, str] = field(default_factory=dict)
    """The name of the job of a recipe."""
    _submitted: dict[str, float] = field(default_factory=dict)
    """When, by the monotonic clock."""
    _begun: set[str] = field(default_factory=set)
    _late: set[str] = field(default_factory=set)
    """Names of jobs whose delay the user has been shown."""

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        assert self.engine is not None
        self._waiting.update(job.items)
        self._job_of.update(dict.fromkeys(job.items, job.name))
        self._submitted[job.name] = time.monotonic()
        self._begun.discard(job.name)
        self.engine.submit(job, avoid)

    @property
    def is_open(self) -> bool:
        return self.engine is not None

    def measured(self, recipe: Expression) -> Trial | None:
        text = recipe.text
        if self.is_open and text in self._waiting:
            self.watch.step(text, "waiting for the machine that measures it")
        while self.engine is not None and text in self._waiting and self._is_coming(text):
            self.watch.beat()
            for told in self.engine.told(_WAIT_S):
                self._take(told)
        self._waiting.discard(text)
        return self.found(recipe)

    def found(self, recipe: Expression) -> Trial | None:
        told = self._told.get(recipe.text)
        return None if told is None else _trial_of(recipe, told)

    def _is_coming(self, text: str) -> bool:
        """Whether its job has begun, or may still begin: other users may occupy all machines for hours."""
        job = self._job_of[text]
        if job in self._begun or time.monotonic() < self._submitted[job] + _START_S:
            return True
        if job not in self._late:
            self._late.add(job)
            _say(f"{job}: no machine was free within {_START_S:.0f} s; until one is, its recipes are measured here")
        return False

    def close(self) -> None:
        """End all jobs. What they have told stands."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _take(self, told: Told) -> None:
        job, event = told.job, told.event
        self._begun.add(job.name)
        if told.lost:
            self._again(told, told.lost)
        elif "key" in event:
            self._keys[job.name] = event["key"]
            differs = [part for part, value in self.cache.key.items() if event["key"].get(part) != value]
            if differs not in ([], ["machine"]):  # its fingerprint is that of this machine
                self._give_up(job, f"another {' and '.join(differs)} than here{told.on_machine}")
        elif "trial" in event and event["trial"]["recipe"] in self._waiting:
            self._waiting.discard(event["trial"]["recipe"])
            self._told[event["trial"]["recipe"]] = event["trial"]
            self._keep(job, event["trial"])
        elif "end" in event and self._left(job):
            if event["end"] < 0:
                self._again(told, f"its process was ended by signal {-event['end']}")
            else:
                last = (event["output"].strip().splitlines() or ["it said nothing"])[-1]
                self._give_up(job, f"status {event['end']}{told.on_machine}: {last}")

    def _keep(self, job: Job, told: dict[str, Any]) -> None:
        """For the next call, where this machine is the same as that one and not only of its kind."""
        recipe = parse(told["recipe"])
        found = _trial_of(recipe, told)
        if found is None or found.case is None or found.case.error is not None or found.is_out_early:
            return
        if self._keys.get(job.name) == self.cache.key:
            self.cache.put(recipe, found.case)

    def _again(self, told: Told, why: str) -> None:
        """A job that is lost runs again elsewhere, without what it has told."""
        job, left = told.job, self._left(told.job)
        times = self._lost[job.name] = self._lost.get(job.name, 0) + 1
        if not left:
            return
        if times > AGAIN:
            self._give_up(job, f"it was lost{told.on_machine} ({why}) for the {times}rd time")
            return
        _say(f"{job.name}: lost{told.on_machine} ({why}); left to measure again: {format_count(len(left), 'recipe')}")
        try:
            self.submit(job.without([text for text in job.items if text not in left]), avoid=told.machine)
        except EngineError as error:
            self._give_up(job, str(error))

    def _give_up(self, job: Job, why: str) -> None:
        left = self._left(job)
        self._waiting.difference_update(left)
        _say(f"{job.name}: {why}; left to measure here: {format_count(len(left), 'recipe')}")

    def _left(self, job: Job) -> list[str]:
        return [text for text in job.items if text in self._waiting]


def fleet_of(options: argparse.Namespace, gauge: GateGauge, cache: Cache, recipes: Sequence[Expression]) -> Fleet:
    """The jobs that `--ray` or `--slurm` asks for, as many as there are machines of this one's kind; none without it.

    Raises:
        ValueError: there is no such cluster, none of its machines is of this one's kind, or the project cannot travel.
    """
    fleet = Fleet(gauge.watch, cache)
    wanted = [recipe.text for recipe in recipes if cache.get(recipe) is None]
    cluster = cluster_of(options)
    if cluster is None or not wanted:
        return fleet
    option = f"--{cluster.engine}"
    here, root = Path.cwd(), Path(options.root)
    for what, path in (("this was called in", here), ("the budgets file is", gauge.budgets.path.resolve())):
        if not path.is_relative_to(root):
            raise ValueError(f"{option}: {what} {path}, outside of the project at {root}, which alone travels")
    try:
        fleet.engine = cluster.connect(read_project(root, options.fleet_exclude))
        machines = _alike(fleet.engine)
        command = (_MODULE, *(with_root(text, root) for text in options.arguments))
        folder, environment = here.relative_to(root).as_posix(), carried_environment(root)
        on_gpu, places = gauge.device.startswith("cuda"), tuple(machine.id for machine in machines)
        for first in range(min(len(machines), len(wanted))):
            items = tuple(wanted[first :: len(machines)])
            fleet.submit(Job(f"job {first + 1}", items, command, folder, environment, on_gpu, places))
    except (EngineError, ProjectError) as error:
        fleet.close()
        raise ValueError(f"{option} {cluster.place}: {error}") from None
    except BaseException:
        fleet.close()
        raise
    return fleet


def cluster_of(options: argparse.Namespace) -> Cluster | None:
    """The one that the command line names. Raises ValueError where it names two."""
    if options.ray is not None and options.slurm is not None:
        raise ValueError("--ray and --slurm are two clusters; recipes are measured on one: give one of them")
    if options.slurm is not None:
        return Cluster("slurm", str(options.slurm.expanduser().absolute()))
    return None if options.ray is None else Cluster("ray", options.ray)


def _alike(engine: Engine) -> list[Machine]:
    """The machines of this one's kind: figures of others are not compared with those of here. Raises EngineError."""
    from pytest_modelopt.optimizing.this_machine import fingerprint

    found = engine.machines(fingerprint)
    mine = fingerprint()
    alike = [machine for machine, other in found if other == mine]
    if not found:
        raise EngineError("the last machine of the cluster that times has left it")
    if not alike:
        name, other = found[0][0].name, found[0][1]
        raise EngineError(
            f"no machine of the cluster is of this one's kind ({name} {_difference(mine, other)}), and figures of "
            "different kinds are not compared: run explore on one of them"
        )
    others = f", {len(found) - len(alike)} of other kinds are left out" if len(found) > len(alike) else ""
    _say(f"{format_count(len(alike), 'machine')} of this one's kind{others}; times are taken here")
    return alike


def _difference(mine: Fingerprint, other: Fingerprint) -> str:
    """The first difference of the other machine, as the end of the sentence 'NAME ...'."""
    if mine.architecture != other.architecture:
        return f"is {other.architecture} and not {mine.architecture}"
    if mine.instructions != other.instructions:
        return f"differs in {', '.join(sorted(mine.instructions ^ other.instructions))}"
    if mine.cores != other.cores:
        return f"has {format_count(other.cores, 'core')} and not {mine.cores}"
    if mine.gpu != other.gpu:
        return f"has {other.gpu or 'no GPU'} and not {mine.gpu or 'none'}"
    names = {*mine.versions, *other.versions}
    different = sorted(name for name in names if mine.versions.get(name) != other.versions.get(name))
    return f"differs in its version of {', '.join(different)}"


def _say(text: str) -> None:
    show("")
    tell(f"fleet: {text}")
