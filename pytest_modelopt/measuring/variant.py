"""What a worker is told: which model, which recipe, which data, and how the call that is measured looks."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.candidate import Candidate
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import Carried, ProgramSource, Source
from pytest_modelopt.results.workload import Taken, Workload

SEED = 20260101
"""Seed of everything random in a run: weights made by a factory, calibration order, the coin of the pairs."""


def environment_now() -> tuple[tuple[str, str], ...]:
    """This process's environment variables, without those that pytest changes with every test."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if not name.startswith("PYTEST_")))


@dataclass(frozen=True)
class SourceTree:
    """The files of another revision, which stand in the place of head's."""

    head: str
    """The top folder of head's working tree."""
    folder: str
    """The top folder of the other revision's."""
    commit: str
    differs: bool
    """Whether any file differs from head's."""
    is_watched: bool = True
    """Whether its worker notes which files it opens: not where its memory is compared with head's, which notes none."""


@dataclass(frozen=True)
class DataPart:
    """One of `parts` disjoint parts of the examples, drawn by the hash of their inputs: equal examples stay together,
    and the order of the data does not matter."""

    index: int
    parts: int
    seed: int

    def holds(self, digest: bytes) -> bool:
        """Whether the example whose inputs have this hash belongs to it."""
        drawn = hashlib.blake2b(digest, digest_size=8, key=self.seed.to_bytes(8, "little")).digest()
        return int.from_bytes(drawn, "little") % self.parts == self.index


@dataclass(frozen=True)
class Variant:
    """One way to run a model: source tree + model + recipe or candidate, and the work on which it is measured.

    The original is the variant with neither of them; two variants of one comparison differ in nothing else.
    """

    model: Source | ProgramSource
    recipe: Expression | None
    data: Source | None
    calibration: Source | None
    example_inputs: Source | None
    metric: MetricSpec
    import_paths: tuple[str, ...]
    """First on the worker's `sys.path`: the folder of budgets.yaml or of the test, then what pytest itself had."""
    working_directory: str
    environment: tuple[tuple[str, str], ...] = ()
    """The worker's environment variables: the fork server knows only those of the moment when it was started. Empty:
    those are good enough."""
    carried_file: str | None = None
    """Where the `Carried` objects are; None when everything comes from factories."""
    batch_size: int = 1
    """Examples in the call that is timed and whose memory is measured."""
    device: str = "cpu"
    """Where it runs: `cpu`, `cuda`, `cuda:1`."""
    threads: int = 1
    """Intra-op threads of the call that is timed: figures then repeat on a shared machine. Every other call, that of
    recipes and of scores, has those of `first`."""
    seed: int = SEED
    slices: Source | None = None
    """A function (inputs, target) -> slice name, called with each example of the data."""
    tree: SourceTree | None = None
    """Where it belongs to another revision: its `import_paths` and its working directory lie in there."""
    candidate: Candidate | None = None
    """What the project has made of the model itself; there is no recipe then."""
    generation: Generation | None = None
    """How it generates; None for a model that is called once."""
    step: Carried | None = None
    """A live function that makes one step of it, in place of the one that `generation` names."""
    batch_of: int | Source | None = None
    """Examples in each batch of the data, or a function (inputs) -> their number; None: the data says it."""
    call: Source | None = None
    """A function (model, inputs) -> outputs, which is what is called; None: the model itself."""
    optimize: str = ""
    """The dotted path below the model of the module that recipes change; empty: the model itself."""
    takes: Taken = "first"
    time_limit_s: float | None = None
    """Of timing it beside another; None: that of the run."""
    workload: str = ""
    """The name of the operating point at which it is measured."""
    part: DataPart | None = None
    """The examples on which it is scored; None: all. The inputs of its call are those of all examples."""
    points: tuple[Workload, ...] = ()
    """All operating points of its model on its device; none where it has only this one."""

    def at(self, point: Workload) -> Variant:
        """The same, called as it is at another operating point."""
        return replace(
            self,
            workload=point.name,
            batch_size=point.batch_size,
            threads=point.threads,
            device=point.device,
            time_limit_s=point.time_limit_s,
            example_inputs=point.example_inputs,
            takes=point.takes,
        )

    @property
    def first(self) -> Variant:
        """At the first operating point, where it is made, optimized and scored, whichever is measured."""
        return self.at(self.points[0]) if self.points else self

    @property
    def point(self) -> Workload:
        """Its operating point, where its model has several."""
        return next(point for point in self.points if point.name == self.workload)

    @property
    def is_at_first(self) -> bool:
        return not self.points or self.workload == self.points[0].name

    @property
    def is_at_last(self) -> bool:
        return not self.points or self.workload == self.points[-1].name

    @property
    def is_original(self) -> bool:
        return self.recipe is None and self.candidate is None

    @property
    def original(self) -> Variant:
        """The same work on the model as it is. Calibration belongs to recipes, so originals that differ in it are
        one."""
        return replace(self, recipe=None, candidate=None, calibration=None)

    @property
    def is_called_otherwise(self) -> bool:
        """Whether the model that is called is not the module that recipes get."""
        return self.call is not None or bool(self.optimize)

    @property
    def call_name(self) -> str:
        """What is called, for the record: empty where it is the model itself."""
        return "" if self.call is None else self.call if isinstance(self.call, str) else "a live function"

    @property
    def label(self) -> str:
        if self.recipe is not None:
            return self.recipe.text
        return ORIGINAL if self.candidate is None else self.candidate.name
