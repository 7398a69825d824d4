"""What one variant costs and answers, and what its recipe changed: raw figures, from which the rest is derived.

Units are in the names: `_bytes` (integers), `_ns` (nanoseconds), `_s` (seconds). Scores are in the metric's own unit
(for accuracy a fraction in 0..1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median_low
from typing import Literal

from pytest_modelopt.results.answers import Repeat
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.generation import CallMemory
from pytest_modelopt.results.observations import Observations

ProcessMeter = Literal["memray", "VmHWM"]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    """Of a candidate: what the project has made of the model itself. Of an original that is a file, too."""
    shipped: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file that `pytest-modelopt export` writes of it, by suffix. Where torch runs it, they are known
    once `export --record` has written them; until then `observations.digest` tells what they will hold."""
    hidden_bytes: int | None = 0
    """What a fresh process gained by loading and calling it beyond what torch's allocator and the walk explain; 0
    within the tolerance, None where no fresh process can load it, or where hardly anything of its weights was found."""

    call_memory: CallMemory | None = None
    """Of a model that generates."""

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class RecipeStep:
    """One recipe of an expression: what it changed relative to the step before, and what it has to say about it."""

    recipe: str
    changed_bytes: int
    weight_bytes: int
    notes: tuple[str, ...] = ()
    unlike_class: dict[str, str] = field(default_factory=dict)
    """Layers of its kinds that it left alone since they do not behave like their class: name -> reason."""


@dataclass(frozen=True, slots=True)
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
