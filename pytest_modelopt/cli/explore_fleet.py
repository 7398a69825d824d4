"""Candidates that machines of a fleet measure side by side, all but their times."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt import __version__
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.cli.shared.progress_line import show
from pytest_modelopt.exploring.cache import Cache, packed, unpacked
from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.fleet.engine import Engine, EngineError, Machine, Told, connect
from pytest_modelopt.fleet.job import AGAIN, Job, carried_environment, with_root
from pytest_modelopt.fleet.project import ProjectError, read_project
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.target import Fingerprint

if TYPE_CHECKING:
    from pytest_modelopt.cli.explore_gauge import GateGauge, Watch

_MODULE = "pytest_modelopt.cli.explore_job"
_WAIT_S = 0.2


def to_event(trial: Trial) -> dict[str, Any]:
    """A trial as a job tells it."""
    assert trial.case is not None
    told = {"recipe": trial.recipe.text, "case": packed(trial.case, __version__, None), "why": trial.why}
    return {"trial": {**told, "is_out_early": trial.is_out_early, "drop_seen": trial.drop_seen}}


def _trial_of(recipe: Expression, told: dict[str, Any]) -> Trial | None:
    """None where what was told is no trial of the recipe."""
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
    """What jobs have told, by the recipe's text."""
    _keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each job works on, by its name (`exploring.cache.key_of`)."""
    _lost: dict[str, int] = field(default_factory=dict)

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        assert self.engine is not None
        self._waiting.update(job.items)
        self.engine.submit(job, avoid)

    def measured(self, recipe: Expression) -> Trial | None:
        """What a job has found of it, once it has; None where no job has, or will. Raises TimeIsUp."""
        text = recipe.text
        if self.engine is not None and text in self._waiting:
            self.watch.step(text, "waiting for the machine that measures it")
        while self.engine is not None and text in self._waiting:
            self.watch.beat()
            for told in self.engine.told(_WAIT_S):
                self._take(told)
        found = _trial_of(recipe, self._told[text]) if text in self._told else None
        case = found.case if found is not None and not found.is_out_early else None
        if case is not None and case.error is None and self._told[text]["is_mine"]:
            self.cache.put(recipe, case)
        return found

    def close(self) -> None:
        """End all jobs. What they have told stands."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _take(self, told: Told) -> None:
        job, event = told.job, told.event
        if told.lost:
            self._again(told, told.lost)
        elif "key" in event:
            self._keys[job.name] = event["key"]
            differs = [part for part, value in self.cache.key.items() if event["key"].get(part) != value]
            if differs not in ([], ["machine"]):  # its fingerprint is that of this machine
                self._give_up(job, f"another {' and '.join(differs)} than here{_on(told)}")
        elif "trial" in event and event["trial"]["recipe"] in self._waiting:
            text = event["trial"]["recipe"]
            self._waiting.discard(text)
            is_mine = self._keys.get(job.name) == self.cache.key
            self._told[text] = {**event["trial"], "is_mine": is_mine}
        elif "end" in event and self._left(job):
            if event["end"] < 0:
                self._again(told, f"its process was ended by signal {-event['end']}")
            else:
                last = (event["output"].strip().splitlines() or ["it said nothing"])[-1]
                self._give_up(job, f"status {event['end']}{_on(told)}: {last}")

    def _again(self, told: Told, why: str) -> None:
        """A job that is lost runs again elsewhere, without what it has told."""
        job, left = told.job, self._left(told.job)
        times = self._lost[job.name] = self._lost.get(job.name, 0) + 1
        if not left:
            return
        if times > AGAIN:
            self._give_up(job, f"it was lost{_on(told)} ({why}) for the {times}rd time")
            return
        _say(f"{job.name}: lost{_on(told)} ({why}); left to measure again: {format_count(len(left), 'recipe')}")
        self.submit(job.without([text for text in job.items if text not in left]), avoid=told.machine)

    def _give_up(self, job: Job, why: str) -> None:
        left = self._left(job)
        self._waiting.difference_update(left)
        _say(f"{job.name}: {why}; left to measure here: {format_count(len(left), 'recipe')}")

    def _left(self, job: Job) -> list[str]:
        return [text for text in job.items if text in self._waiting]


def fleet_of(options: argparse.Namespace, gauge: GateGauge, cache: Cache, recipes: Sequence[Expression]) -> Fleet:
    """The jobs that `--ray` asks for, as many as there are machines of this one's kind; none without it.

    Raises:
        ValueError: there is no such cluster, none of its machines is of this one's kind, or the project cannot travel.
    """
    fleet = Fleet(gauge.watch, cache)
    wanted = [recipe.text for recipe in recipes if cache.get(recipe) is None]
    if options.ray is None or not wanted:
        return fleet
    here, root = Path.cwd(), Path(options.root)
    if not here.is_relative_to(root):
        raise ValueError(
            f"--ray: this was called in {here}, outside of the project at {root}, which alone travels: call it within"
        )
    try:
        fleet.engine = connect(options.ray, read_project(root, options.fleet_exclude))
        machines = _alike(fleet.engine)
    except (EngineError, ProjectError) as error:
        fleet.close()
        raise ValueError(f"--ray {options.ray}: {error}") from None
    command = (_MODULE, *(with_root(text, root) for text in options.arguments))
    folder, environment = here.relative_to(root).as_posix(), carried_environment(root)
    on_gpu, places = gauge.device.startswith("cuda"), tuple(machine.id for machine in machines)
    for first in range(min(len(machines), len(wanted))):
        items = tuple(wanted[first :: len(machines)])
        fleet.submit(Job(f"job {first + 1}", items, command, folder, environment, on_gpu, places))
    return fleet


def _alike(engine: Engine) -> list[Machine]:
    """The machines of this one's kind: figures of others are not compared with those of here. Raises EngineError."""
    from pytest_modelopt.optimizing.this_machine import fingerprint

    found = engine.machines(fingerprint)
    mine = fingerprint()
    alike = [machine for machine, other in found if other == mine]
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
    """What the other has, as the end of 'it ...'."""
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
    tell(f"--ray: {text}")


def _on(told: Told) -> str:
    return f" on {told.machine.name}" if told.machine is not None else ""
