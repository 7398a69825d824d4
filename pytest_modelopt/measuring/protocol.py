"""What a worker sends back: plain values that the pytest process can read without torch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_modelopt.results.answers import Repeat
from pytest_modelopt.results.candidate import Provenance
from pytest_modelopt.results.generation import CallMemory, Divergence
from pytest_modelopt.results.measurement import Coverage
from pytest_modelopt.results.observations import Spread
from pytest_modelopt.results.wrong_pairs import Pairing

ROUNDING = 1e-3
"""As a share of the largest number: kernels may add in another order, another model is much further away."""

LEAST_HELD = 64
"""With less than one part in so many of the original's weights nobody knows where a variant's are."""


class VariantError(Exception):
    """The variant cannot be measured; the message says why and what to do, in words for the model's owner."""


def error_text(error: BaseException, most: int = 1000) -> str:
    """An exception in one line: its type and message, whatever the project's own class makes of it."""
    try:
        message = " ".join(str(error).split())
    except BaseException as another:
        message = f"(its message cannot be made: {type(another).__name__})"
    return f"{type(error).__name__}: {cut(message, most)}" if message else type(error).__name__


def cut(text: str, most: int) -> str:
    """A text of about `most` characters at most: of a longer one the beginning and the end, where causes stand."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]} ... {text[-(most // 3) :]}"


@dataclass(frozen=True)
class CallShape:
    """The inputs of the measured call."""

    batch_size: int
    shapes: tuple[tuple[int, ...], ...]
    """Of its tensors, in the order of the arguments."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """What is known of a variant once it stands: notes about the model, and what the recipe changed."""

    notes: tuple[str, ...]
    coverage: Coverage | None
    metric_name: str
    higher_is_better: bool
    no_coverage: str = ""
    """Why nobody knows what the recipe changed."""
    provenance: Provenance | None = None
    """Of a candidate, and of an original that is a file."""
    shipped: dict[str, str] = field(default_factory=dict)
    """As in `Measurement`."""
    digest: str | None = None
    """As in `Observations`, of what a recipe has made, and of a candidate."""
    sources: str = ""
    """A sum of the project's own modules that it has imported."""
    has_compiler: bool = False
    """Whether the project has imported torch's compiler, or a library that does."""
    is_uncounted: bool = False
    """Whether hardly anything of the weights was found in memory that the tensor meter can count."""
    called: CallShape | None = None


@dataclass(frozen=True)
class Memory:
    """What the tensor meter found. With a foreign `runtime` it has no figures: that memory is not torch's."""

    weights_bytes: int | None
    call_peak_bytes: int | None
    runtime: str | None = None
    reserved_bytes: int | None = None
    """What the allocator of a GPU has taken from it, in use or not; None on the CPU."""
    call: CallMemory | None = None
    """Of a model that generates."""


@dataclass(frozen=True)
class Balance:
    """What a fresh process gained by a variant beside what the tensor meter explains."""

    hidden_bytes: int
    """0 where it is within the tolerances."""
    runtime: str = ""
    """A runtime that the model started when it was loaded or called there."""
    books: tuple[tuple[int, int], ...] = ()
    """(unexplained bytes, tolerance) of each counter: freed with the instance, allocated, pages, Python's small
    objects, files, in a call."""
    why_not: str = ""
    """Why nobody could look."""
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each file beside the saved one that it read."""
    unnamed_bytes: int = 0
    """What it has read of files that nobody could name; 0 where it is within the tolerance."""
    other_processes: str = ""
    """Those to which it leaves work, in words; '' where there are none."""
    packing_bytes: int = 0
    """What kernels keep for packed weights beside the numbers in them."""


@dataclass(frozen=True)
class KnownTargets:
    """The targets of all examples in short, where these are tensors of one shape and type, and so are all inputs.

    Of inputs of several sizes nothing is kept: what a model answers may have their sizes, as of a model that points to
    a position in them.
    """

    shape: tuple[int, ...]
    """Of one example's."""
    dtype: str
    named: tuple[array[int], array[int]] | None
    """The whole numbers among them, and the first example of each; None for other numbers, and for too many."""

    def __str__(self) -> str:
        """'(examples,) int64, from 0 to 9'"""
        sizes = ", ".join(("examples", *map(str, self.shape))) + ("" if self.shape else ",")
        span = f", from {min(self.named[0])} to {max(self.named[0])}" if self.named else ""
        return f"({sizes}) {self.dtype}{span}"

    def first_outside(self, classes: int, ignored: Sequence[int] = ()) -> tuple[int, int] | None:
        """The first target that is none of 0 to `classes` - 1 and not ignored, and its example; None: there is none."""
        values, examples = self.named or ((), ())
        found = (
            (example, value)
            for value, example in zip(values, examples, strict=True)
            if not 0 <= value < classes and value not in ignored
        )
        example, value = min(found, default=(None, None))
        return None if example is None or value is None else (value, example)


@dataclass(frozen=True)
class Examples:
    """The evaluation data as it was read, once for each model: what the workers of its variants then work with."""

    path: str | None
    """The file that holds all batches; None where they are too large to keep, and each variant reads the source."""
    count: int
    fingerprint: str
    """SHA-256 over every example's inputs and target, in order."""
    first: tuple[bytes, ...]
    """Hashes of the first examples: a second reading of the source is compared with them."""
    slice_names: tuple[str, ...] = ()
    """Of the project's slice function, in order of first appearance; empty where there is none."""
    slice_of: array[int] | None = None
    """The slice of each example, as an index into `slice_names`."""
    hashes_path: str = ""
    """The file with the hashes of all inputs, in order, by which calibration examples are found in the data."""
    notes: tuple[str, ...] = ()
    """What should be known about the data, in words."""
    call_path: str = ""
    """The file with the first batches of all examples, where only a part of these was read: the measured call's."""
    targets: KnownTargets | None = None
    """None where nothing is known that holds for all of them."""


@dataclass(frozen=True)
class Tokens:
    """What a model that generates holds for the next token, position by position after the data's own tokens."""

    most_probable: array[int]
    """Sequence by sequence."""
    positions: int
    """Of each sequence."""
    divergence: Divergence | None = None
    """From the original; None for itself, and where it has no value."""


@dataclass(frozen=True)
class Answers:
    """The score of one variant on all examples, in the metric's unit, and what it was made from.

    What is None is missing for the reason in `why_not`: 'score', 'predictions', 'slices', 'interval' -> a sentence.
    """

    score: float | None
    examples: int
    data_fingerprint: str
    predictions: array[int] | None
    """Predicted class of each example (the first of several); None for a metric that knows none."""
    correct: bytes | None
    """1 or 0 per example, in the same order; None for a metric that is not right-or-wrong per example."""
    targets: array[int] | None = None
    """Of each example, in the same order; None where there are no labels, or they are not classes."""
    classes: int | None = None
    """Classes for which the model gives scores; None where `predictions` is."""
    slice_scores: tuple[float | None, ...] | None = None
    """Of each slice of the project's slice function, for a metric that is not right-or-wrong per example."""
    summands: array[float] | None = None
    """The additive parts of the score: `width` numbers for each example, whose sums over any examples give the score
    of those (`Bench.interval`)."""
    width: int = 0
    repeat: Repeat | None = None
    notes: tuple[str, ...] = ()
    """What must be known to read the score."""
    why_not: dict[str, str] = field(default_factory=dict)
    pairing: Pairing | None = None
    """Of an original with targets."""
    spread: Spread | None = None
    tokens: Tokens | None = None
    """Of a model that generates."""
    why_unpaired: str = ""
    """What went wrong when it was made; empty where nothing did."""


@dataclass(frozen=True)
class Look:
    """Answers to some examples, in columns; `numbers` are the places of the examples in the data."""

    numbers: array[int]
    predictions: array[int]
    correct: bytes


class TooFewExamples(str):
    """Why a drop has no interval, where more examples would give it one."""


@dataclass(frozen=True)
class Sample:
    """Part of what a model answered, by which another launch of it can be checked."""

    kinds: str
    """Types and shapes of all tensors."""
    values: array[float]
    """The first numbers in them; none where the answer holds no tensor."""

    def is_like(self, other: Sample) -> bool:
        """Whether both are answers of the same model, up to rounding."""
        if self.kinds != other.kinds or len(self.values) != len(other.values):
            return False
        scale = max((abs(value) for value in self.values if math.isfinite(value)), default=0.0)
        pairs = zip(self.values, other.values, strict=True)
        return all(a == b or abs(a - b) <= ROUNDING * scale or (a != a and b != b) for a, b in pairs)


@dataclass(frozen=True)
class Prepared:
    """A worker whose first calls are made."""

    why_not: str
    """Why calls that are repeated would time something else than the model, or ''."""
    weights_bytes: int
    """0 where they cannot be counted, as in another runtime."""


@dataclass(frozen=True)
class Block:
    """One block of calls: what a warm call takes, and what others did to the block meanwhile."""

    call_ns: int
    """The mean of the timed calls, without the time that others had the processor."""
    calls: int
    elapsed_ns: int
    """All timed calls together."""
    warming_ns: int
    """The untimed calls before them."""
    delayed_ns: int
    """How long it was ready to go on but others had the processor; part of `elapsed_ns`."""
    canary_ns: int
    """What a fixed piece of work took after it; 0 where it is not asked for."""
    calls_ns: tuple[int, ...] = ()
    """What single calls after the block took, without the time that others had; empty where nobody asked."""


@dataclass(frozen=True)
class FirstAnswer:
    """What a fresh process took from a saved variant to its first answer, and what others did to it meanwhile."""

    elapsed_ns: int
    delayed_ns: int
    """How long its thread was ready to go on but others had the processor; part of `elapsed_ns`."""
    canary_ns: int
    """What a fixed piece of work took after it; 0 on a GPU."""
    answer: Sample


@dataclass(frozen=True)
class Usage:
    """What a worker did with the processor while pairs were timed."""

    threads: int
    """Intra-op threads that torch has in force."""
    active_threads: int | None
    """Threads that did the model's work; None where the system does not tell."""
    processor_ns: int
    """Processor time of the whole process."""
    idle_cores: float
    """Cores that it kept busy while it was not its turn."""
    compilations: int = 0
    """Graphs that torch.compile made after the warm-up."""
    recognized: str = ""
    """Why calls were not alike: the model knew inputs again, by the places of others before them. In words, or ''."""


@dataclass(frozen=True)
class LayerTrial:
    """What came of a recipe on a copy of the model, of which some layers were kept."""

    answers: Answers | None = None
    """None where it could not be applied: `why` says it."""
    weights_bytes: int | None = None
    """That the variant holds; None where its memory cannot be read."""
    why: str = ""
    changes_nothing: bool = False
