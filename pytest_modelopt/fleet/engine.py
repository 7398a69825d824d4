"""The interface of an engine that places jobs on machines; `on_ray.py` and `on_slurm.py` implement it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from pytest_modelopt.fleet.job import Event, Job
from pytest_modelopt.fleet.project import Project
from pytest_modelopt.results.target import Fingerprint


class EngineError(Exception):
    """Why jobs cannot be placed; the message says what to do."""


_NEEDS = {"ray": ("ray", "Ray", "fleet"), "slurm": ("submitit", "submitit", "slurm")}
"""Module, its name, and the extra that installs it."""


@dataclass(frozen=True)
class Cluster:
    """The machines that the user names."""

    engine: Literal["ray", "slurm"]
    place: str
    """The address of a Ray cluster, or the folder that the machines of a Slurm cluster share."""

    def require(self, root: Path) -> None:
        """Raises EngineError where what it needs is not installed, or would lie in the project at `root`."""
        if self.engine == "slurm" and Path(self.place).is_relative_to(root):
            raise EngineError(
                f"{self.place} lies in the project at {root}: pytest would collect what jobs have there; name a folder "
                "outside of it"
            )
        module, name, extra = _NEEDS[self.engine]
        if find_spec(module) is None:
            raise EngineError(f"{name} is not installed: pip install 'pytest-modelopt[{extra}]'")

    def connect(self, project: Project) -> Engine:
        """The engine of the cluster, to which the project travels. Raises EngineError."""
        self.require(project.root)
        if self.engine == "ray":
            from pytest_modelopt.fleet.on_ray import RayEngine

            return RayEngine(self.place, project)
        from pytest_modelopt.fleet.on_slurm import SlurmEngine

        return SlurmEngine(Path(self.place), project)


@dataclass(frozen=True)
class Machine:
    """One of the cluster: what the engine knows it by, and a name for people."""

    id: str
    name: str


@dataclass(frozen=True)
class Told:
    """One event of a job, or why the job is lost: the process that ran it, or its machine, has ended."""

    job: Job
    event: Event
    machine: Machine | None
    """None while nobody knows it."""
    lost: str = ""

    @property
    def on_machine(self) -> str:
        """The words ` on NODE`; empty while no machine has the job."""
        return f" on {self.machine.name}" if self.machine is not None else ""


class Engine(Protocol):
    """Places jobs, and tells their events as they come."""

    def machines(self, ask: Callable[[], Fingerprint]) -> list[tuple[Machine, Fingerprint]]:
        """Those of the cluster on which jobs may run, each with what `ask` says there. Raises EngineError where one
        does not answer."""

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        """Run the job on a machine that no other job of ours uses, and if there is a choice not on `avoid`."""

    def told(self, wait_s: float) -> Iterator[Told]:
        """Events that have come within `wait_s` seconds. Of a job that is lost this is told, and nothing after it."""

    def close(self) -> None:
        """End all jobs, and leave the cluster. May be called twice."""
