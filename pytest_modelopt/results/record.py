"""The record: everything one run found, as frozen dataclasses that hold raw figures and derive the rest on reading.

Units are in the names: `_bytes` (integers), `_ns` (nanoseconds), `_s` (seconds). Scores are in the metric's own unit
(for accuracy a fraction in 0..1), drops in the same unit, so a drop of 0.01 in accuracy is one point (1 pp).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pytest_modelopt.results.base import Against
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.layer_costs import RecipeSensitivity
from pytest_modelopt.results.merge_info import Merged

SCHEMA_VERSION: Literal[9] = 9


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the libraries that the figures belong to."""

    python: str
    platform: str
    cpu: str
    cpu_count: int
    cpu_capability: str
    """The instruction set that torch's kernels chose: 'AVX2', 'AVX512', 'DEFAULT'."""
    cpu_flags: tuple[str, ...]
    """Flags that decide how fast reduced precision runs: avx2, avx512_vnni, avx_vnni, amx_int8, avx512_bf16, ..."""
    torch: str
    quantized_engine: str
    gpu: str | None = None
    """Name of the GPU and the CUDA version that torch was built for, where models ran on one."""
    packages: dict[str, str] = field(default_factory=dict)
    architecture: str = ""
    """As `platform.machine()` says it: 'x86_64', 'aarch64'; '' where nobody noted it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machines on which cases are to be measured; what is empty may be anything."""

    name: str
    architecture: str = ""
    instructions: tuple[str, ...] = ()
    """Of the processor, by the names of `Environment.cpu_flags`."""
    device: str = ""
    """On which its cases run: 'cpu' or 'cuda'."""
    gpu: str = ""
    """A part of the GPU's name."""
    cores: int = 0
    """At least so many."""
    runtime: dict[str, str] = field(default_factory=dict)
    """Versions of packages, 'onnxruntime' -> '>=1.20', as pip takes them."""
    is_required: bool = False
    """Whether a run that has no such machine is red."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything one run found, and what became of every test that it knew; `run_outcome.py` says what it comes to."""

    tool_version: str
    started: str
    """ISO 8601, UTC."""
    seed: int
    strict: bool
    timed_limits: int
    """Timed limits in the run: the error probability of FAIL is shared among them."""
    planned: tuple[str, ...]
    """Every test that was to leave a case: one of which nothing is known never ran."""
    complete: bool
    """False until the run has ended by itself: an interrupted run leaves False."""
    cases: tuple[Case, ...]
    environment: Environment | None = None
    other_machines: tuple[Environment | None, ...] = ()
    """Of a merged record, or of a run on a fleet: its other machines, in the order of `Case.machine`. None: one that
    measured nothing, so that nobody knows what it is."""
    collected: tuple[str, ...] = ()
    """Every case that the run knew, also those that were deselected: together, the jobs of one commit must run all."""
    skipped: tuple[str, ...] = ()
    """Tests that were planned and skipped: not measured, and told as such."""
    idle: tuple[str, ...] = ()
    """Tests that were planned, state no budget and passed without measuring: nothing of them is missing, either."""
    uncollected: tuple[str, ...] = ()
    """Files that pytest could not collect (an import error, for example): their cases are unknown."""
    whole: bool = False
    """Whether a known case that did not run makes the run red (`--modelopt-whole`). True for a merged record."""
    no_loosening: bool = False
    """Whether a limit that head states less strictly than its base makes the run red (`--modelopt-no-loosening`)."""
    against: Against | None = None
    """What head was compared with; None where it was not."""
    merged: Merged | None = None
    """Of a record that was put together from those of several jobs; None for the record of one run."""
    notes: tuple[str, ...] = ()
    """Sentences about how the run went: which jobs of a fleet were lost and ran again."""
    project: str = ""
    """Of a run on a fleet: SHA-256 of its project's files, by which a later run knows whether it can go on from it."""
    sensitivity: tuple[RecipeSensitivity, ...] = ()
    """Of `explore`: what recipes cost on each layer alone, as far as it was measured."""
    targets: tuple[Target, ...] = ()
    """Those of the budgets file: which machine is one of them follows from its `Environment`."""
    of_targets: tuple[str, ...] = ()
    """The targets that this run alone is about (`--modelopt-targets`), each of which its machine must be; of other
    required ones another job has to measure the cases. Empty for a run that is about all."""
    schema_version: Literal[9] = SCHEMA_VERSION

    def machine_of(self, case: Case) -> Environment | None:
        """The machine on which the case was measured."""
        return (self.environment, *self.other_machines)[case.machine]
