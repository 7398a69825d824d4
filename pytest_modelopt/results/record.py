"""The record: everything one run found, as frozen dataclasses that hold raw figures and derive the rest on reading.

Units are in the names: `_bytes` (integers), `_ns` (nanoseconds), `_s` (seconds). Scores are in the metric's own unit
(for accuracy a fraction in 0..1), drops in the same unit, so a drop of 0.01 in accuracy is one point (1 pp).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median_low
from typing import Literal

from pytest_modelopt.results.answers import Agreement, Inference, Interval, Repeat, Slices
from pytest_modelopt.results.base import Against, Base
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.merge_info import Merged
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.verdicts import Finding, Limit, Verdict

SCHEMA_VERSION: Literal[7] = 7
ORIGINAL = "original"
"""Stands for a recipe where the model without one is compared with its base."""

ProcessMeter = Literal["memray", "VmHWM"]
Stage = Literal["start", "read", "load", "optimize", "size", "memory", "score", "timing", "limits", "compare", "test"]


@dataclass(frozen=True)
class ProcessMemory:
    """Peak memory of fresh processes that only load the saved variant and run one call, minus what they took before.

    It holds for any runtime, also for one that bypasses torch's allocator. Every run is kept, so the spread is known.
    """

    peaks_bytes: tuple[int, ...]
    meter: ProcessMeter
    """'memray' counts allocations; 'VmHWM' is the kernel's resident peak, pages of the libraries that ran included."""

    @property
    def bytes(self) -> int | None:
        """The median run (of an even number of runs the lower of the two in the middle)."""
        return median_low(self.peaks_bytes) if self.peaks_bytes else None

    @property
    def spread_bytes(self) -> int:
        """The highest run minus the lowest."""
        return max(self.peaks_bytes, default=0) - min(self.peaks_bytes, default=0)


@dataclass(frozen=True)
class Measurement:
    """What one variant costs and answers. A figure that is None could not be measured; `unmeasured` says why."""

    recipe: str | None
    """The recipe in canonical spelling, or the name of the candidate; None for the original."""
    size_bytes: int | None
    weights_bytes: int | None
    """Bytes of the unique storages of parameters, buffers and packed weights."""
    call_peak_bytes: int | None
    """Peak of what the allocator handed out during one call, weights not included."""
    score: float | None
    examples: int
    data_fingerprint: str | None
    """SHA-256 of every input and target, in order."""
    notes: tuple[str, ...] = ()
    """What was done to the model beyond the recipe, or should be known about it: 'was in training mode', ..."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Figure name -> why it is missing."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Where this variant's wall time went: start, load, optimize, size, memory, score, process_memory."""
    process_memory: ProcessMemory | None = None
    """Measured only where a limit asks for it, or where a variant of the comparison runs on a foreign runtime."""
    runtime: str | None = None
    """The foreign runtime found in the model ('ONNX Runtime', 'OpenVINO', 'LiteRT'); None: torch's allocator."""
    reserved_bytes: int | None = None
    """On a GPU: what torch's allocator has taken from it, in use or not."""
    observations: Observations | None = None
    """What else its worker saw; None where it came to no look."""
    repeat: Repeat | None = None
    """Of a variant that answers differently each time; None for one that repeats itself, and where nobody looked."""
    provenance: Provenance | None = None
    """Of a candidate: what the project has made of the model itself."""
    hidden_bytes: int | None = 0
    """What a fresh process gained by loading and calling it beyond what torch's allocator and the walk explain; 0
    within the tolerance, None where no fresh process can load it, or where hardly anything of its weights was found."""

    @property
    def outside_of_torch(self) -> str | None:
        """Who allocates for it where the tensor meter does not see it, so that only the process meter holds; None:
        nobody."""
        if self.runtime or self.hidden_bytes == 0:
            return self.runtime
        return "memory that torch's allocator does not see" if self.hidden_bytes else "memory that nobody could check"

    @property
    def memory_bytes(self) -> int | None:
        """Peak memory of one call by the tensor meter: resident weights plus the peak of the call's allocations.

        A comparison with a foreign runtime does not use it: see `Case.memory_peaks_bytes`.
        """
        if self.weights_bytes is None or self.call_peak_bytes is None:
            return None
        return self.weights_bytes + self.call_peak_bytes


@dataclass(frozen=True)
class LayerCoverage:
    """Of one module that owns weights directly: how many of its weight bytes the recipe really changed.

    A module without weights of its own is listed where it does multiply-adds, as attention between activations.
    """

    name: str
    type: str
    weight_bytes: int
    changed_bytes: int
    multiply_adds: int = 0
    """Of one call of the original, children not included; 0 for elementwise work, and where it could not be counted."""
    changed_multiply_adds: int = 0
    """Those of them that the changed weights do: all, where a matrix of the layer changed, else none."""


@dataclass(frozen=True)
class RecipeStep:
    """One recipe of an expression: what it changed relative to the step before, and what it has to say about it."""

    recipe: str
    changed_bytes: int
    weight_bytes: int
    notes: tuple[str, ...] = ()
    unlike_class: dict[str, str] = field(default_factory=dict)
    """Layers of its kinds that it left alone since they do not behave like their class: name -> reason."""


@dataclass(frozen=True)
class Coverage:
    """What the whole recipe expression changed in the original's weights, in bytes, by layer."""

    layers: tuple[LayerCoverage, ...]
    steps: tuple[RecipeStep, ...]

    @property
    def weight_bytes(self) -> int:
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def changed_bytes(self) -> int:
        return sum(layer.changed_bytes for layer in self.layers)

    @property
    def share(self) -> float:
        """Share of weight bytes that were changed, 0..1."""
        return self.changed_bytes / self.weight_bytes if self.weight_bytes else 0.0

    @property
    def multiply_adds(self) -> int:
        """Of one call of the original; 0 where they could not be counted."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def multiply_adds_share(self) -> float | None:
        """Share of the original's multiply-adds that changed weights do, 0..1; None where they were not counted."""
        return (
            sum(layer.changed_multiply_adds for layer in self.layers) / self.multiply_adds
            if self.multiply_adds
            else None
        )


@dataclass(frozen=True)
class TimedPair:
    """A block on the original and a block on the variant, in the order that a coin decided.

    A block is untimed calls until they get no faster, and then timed ones.
    """

    launch: int
    """Which launch of the two workers it was measured in, from 1."""
    at_ms: int
    """Milliseconds of timing, over all launches, before this pair."""
    variant_first: bool
    original_ns: int
    """One call of the original: the mean of the timed calls of its block, without the time that others had the
    processor."""
    variant_ns: int
    original_calls: int
    """Timed calls in the block."""
    variant_calls: int
    original_block_ns: int
    """All timed calls together."""
    variant_block_ns: int
    original_warming_ns: int
    """The untimed calls before them."""
    variant_warming_ns: int
    canary_ns: int
    """What a fixed piece of work took beside the two blocks, by which the state of the machine is known; 0 on a GPU."""
    original_switches: int
    """How often the operating system took the processor away from the block (involuntary context switches)."""
    variant_switches: int
    original_delayed_ns: int
    """How long the block was ready to go on while others had the processor; part of `original_block_ns`."""
    variant_delayed_ns: int


@dataclass(frozen=True)
class WorkerUse:
    """What one worker did with the processor while pairs were timed."""

    active_threads: int | None
    """Threads that did the model's work (each at least a twentieth of it); None where the system does not tell."""
    idle_cores: float
    """Cores kept busy while the other worker had its turn: near 1 where a waiting thread spins."""
    compilations: int = 0
    """Graphs that torch.compile made while blocks were timed."""


@dataclass(frozen=True)
class Conditions:
    """The machine while pairs were timed. A figure that the system does not give is None."""

    cores: int
    """Cores that the run may use; the figures are about these."""
    load: float | None
    """Load average of the last minute, when timing began."""
    other_cores: float | None
    """Cores kept busy by processes that are not of this comparison, on average."""
    stolen_cores: float | None
    """Cores that the hypervisor gave to other machines meanwhile (steal), on average."""
    throttled_s: float | None
    """Seconds for which a quota on the container's processor time stopped it."""
    canary_at_best_ns: int | None
    """What the canary takes in the best state that this machine is known to have had since it was started."""
    waited_s: float
    """Seconds that this comparison waited for others to finish theirs, before its own clock ran."""
    original: WorkerUse
    variant: WorkerUse


@dataclass(frozen=True)
class Timing:
    """All pairs of one comparison."""

    pairs: tuple[TimedPair, ...]
    seed: int
    """Seed of the coin that ordered each pair."""
    seconds: float
    """Spent on the pairs."""
    prepare_s: float
    """Spent before them, on the first calls of both workers, in all launches together."""
    time_limit_s: float
    threads: int
    conditions: Conditions

    @property
    def delayed(self) -> float:
        """Share of the timed time, 0..1, for which others had the processor."""
        delayed_ns = sum(pair.original_delayed_ns + pair.variant_delayed_ns for pair in self.pairs)
        return delayed_ns / max(1, self._timed_ns)

    @property
    def warming(self) -> float:
        """Share of all calls' time, 0..1, that went into calls which only warm the caches."""
        warming_ns = sum(pair.original_warming_ns + pair.variant_warming_ns for pair in self.pairs)
        return warming_ns / max(1, warming_ns + self._timed_ns)

    @property
    def _timed_ns(self) -> int:
        return sum(pair.original_block_ns + pair.variant_block_ns for pair in self.pairs)


@dataclass(frozen=True)
class CaseError:
    """Why a case has no result: the stage that failed, one message, and the last lines that the worker printed."""

    stage: Stage
    message: str
    output: str = ""


@dataclass(frozen=True)
class Expected:
    """A test that is marked with `xfail`, and what came of it: none of its cases makes a run red."""

    outcome: Literal["xfailed", "xpassed"]
    reason: str


@dataclass(frozen=True)
class Case:
    """One (model, recipe, budget), as measured and judged."""

    id: str
    """The pytest node id."""
    model: str
    recipe: str
    """'' where a test failed before it said which."""
    metric: str | None
    higher_is_better: bool
    limits: tuple[Limit, ...]
    batch_size: int
    original: Measurement | None = None
    variant: Measurement | None = None
    coverage: Coverage | None = None
    agreement: Agreement | None = None
    """None for a metric that is not right-or-wrong per example."""
    slices: Slices | None = None
    interval: Interval | None = None
    """Of the drop, for a metric that is not right-or-wrong; None where none is honest: `no_interval` says why."""
    no_interval: str = ""
    interval_lacks_examples: bool = False
    """Whether that is for want of examples: then a limit on the population is undecided, and nothing is wrong."""
    inference: Inference = "set"
    timing: Timing | None = None
    error: CaseError | None = None
    verdicts: tuple[Verdict, ...] = ()
    device: str = "cpu"
    findings: tuple[Finding, ...] = ()
    threads: int | None = None
    """Intra-op threads of every call."""
    base: Base | None = None
    """Where head is compared with its base and not with its original: then `original` is the base's measurement."""
    machine: int = 0
    """Which machine of its record it was measured on: 0 is `Record.environment`, 1 the first of `other_machines`."""
    expected: Expected | None = None
    """The result of a test that is marked with `xfail`; None for any other test."""

    @property
    def drop(self) -> float | None:
        """How much worse the variant's score is than the original's, in the metric's unit; negative is better.

        Where predictions were compared one by one it is what was counted, without the rounding of two scores: 63 of 400
        are 15.75 pp.
        """
        if self.original is None or self.variant is None:
            return None
        if self.original.score is None or self.variant.score is None:
            return None
        if math.isclose(self.original.score, self.variant.score, rel_tol=1e-12):
            return 0.0
        difference = self.original.score - self.variant.score
        drop = difference if self.higher_is_better else -difference
        if self.agreement is None:
            return drop
        counted = (self.agreement.right_to_wrong - self.agreement.wrong_to_right) / self.agreement.examples
        return counted if math.isclose(counted, drop, abs_tol=1e-9) else drop

    @property
    def name(self) -> str:
        return f"{self.model}/{self.recipe}" if self.recipe else self.model

    @property
    def foreign_runtimes(self) -> tuple[str, ...]:
        """What the original or the variant holds beside torch: runtimes, or memory of which nobody knows whose it is.

        With any, the memory of both is compared by the process meter: torch's allocator would not see one of them.
        """
        found = (side.outside_of_torch for side in (self.original, self.variant) if side is not None)
        return tuple(dict.fromkeys(what for what in found if what is not None))

    def memory_peaks_bytes(self, side: Measurement | None) -> tuple[int, ...]:
        """What the meter of this comparison read for `side`: one exact figure, or one of each fresh process.

        Empty where it was not measured.
        """
        if side is None:
            return ()
        if self.foreign_runtimes:
            return side.process_memory.peaks_bytes if side.process_memory else ()
        return () if side.memory_bytes is None else (side.memory_bytes,)

    def memory_bytes(self, side: Measurement | None) -> int | None:
        """Peak memory of `side` by the meter of this comparison: the median where there are several figures."""
        peaks = self.memory_peaks_bytes(side)
        return median_low(peaks) if peaks else None


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    """Of a merged record: the machines of its other jobs, in the order of `Case.machine`. None: one that measured
    nothing, so that nobody knows what it is."""
    collected: tuple[str, ...] = ()
    """Every case that the run knew, also those that were deselected: together, the jobs of one commit must run all."""
    skipped: tuple[str, ...] = ()
    """Tests that were planned and skipped: nothing of them is missing."""
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
    schema_version: Literal[7] = SCHEMA_VERSION

    def machine_of(self, case: Case) -> Environment | None:
        """The machine on which the case was measured."""
        return (self.environment, *self.other_machines)[case.machine]
