"""Timed pairs of one comparison, of blocks of calls or of fresh processes, and the machine while they were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TimedCall = Literal["whole", "prefill", "decode"]
"""What the calls of a block are: a whole call, or of a model that generates the part of one."""
PHASES: tuple[TimedCall, ...] = ("prefill", "decode")
"""Timed beside the whole call where a model generates."""


@dataclass(frozen=True, slots=True)
class TimedPair:
    """A block on the original and a block on the variant, in the order that a coin decided.

    A block is untimed calls until they get no faster, and then timed ones.
    """

    launch: int
    """Which launch of the two workers it was measured in, from 1."""
    at_ms: int
    """Milliseconds of timing, over all launches, before this pair."""
    variant_first: bool
    reference_ns: int
    """One call of the original: the mean of the timed calls of its block, without the time that others had the
    processor."""
    variant_ns: int
    reference_calls: int
    """Timed calls in the block."""
    variant_calls: int
    reference_block_ns: int
    """All timed calls together."""
    variant_block_ns: int
    reference_warming_ns: int
    """The untimed calls before them."""
    variant_warming_ns: int
    canary_ns: int
    """What a fixed piece of work took beside the two blocks, by which the state of the machine is known; 0 on a GPU."""
    reference_delayed_ns: int
    """How long the block was ready to go on while others had the processor; part of `reference_block_ns`."""
    variant_delayed_ns: int


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """What one worker did with the processor while pairs were timed."""

    active_threads: int | None
    """Threads that did the model's work (each at least a twentieth of it); None where the system does not tell."""
    idle_cores: float
    """Cores that it kept busy, or wanted while others had them, while the other worker had its turn: near 1 where a
    waiting thread spins."""
    compilations: int = 0
    """Graphs that torch.compile made while blocks were timed."""


LARGE_BYTES = 16 * 2**20
"""More than that is taken for larger than the caches of a processor."""


@dataclass(frozen=True, slots=True)
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
    reference: WorkerUse
    variant: WorkerUse
    host: str = ""
    """Which machine it was, since it was started (`system.host`); '' where nobody knows."""
    held_ms: tuple[tuple[int, int], ...] = ()
    """From when to when this comparison had the machine for itself, for each launch, in milliseconds since 1970."""
    are_large: bool = False
    """Whether a side holds more than LARGE_BYTES of weights: its time depends on the machine's memory."""


FURTHEST = 32.0
"""The largest logarithm of a time in seconds, or of a ratio of two: a day is 32 such steps longer than a nanosecond."""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """How much the figures of one call differed between earlier runs of the same programs on the same machine, beyond
    what the pairs of each run explain."""

    runs: int
    freedom: int
    """Runs less one for each change of the programs: how many deviations are independent of each other."""
    speedup: float
    """Sum of squared deviations of its logarithm from the mean of the programs."""
    latency: float
    """The same of the variant's latency."""
    own: int = 0
    """Those of the programs of now, of which the rest is: how a figure follows a state belongs to the programs."""
    original: float = 0.0
    """Sum of squared deviations of the logarithm of the original's latency, beyond what each run explains."""
    speedup_with_original: float = 0.0
    """Sum of the products of the deviations of the speedup and of the original's latency."""
    latency_with_original: float = 0.0
    """The same of both latencies."""
    fastest_s: float | None = None
    """Seconds of the original in the fastest fifth of the runs; None without any."""
    canary_at_fastest_ns: float | None = None
    """What the canary took beside these; None where it was not timed."""


@dataclass(frozen=True, slots=True)
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
    variant_calls_ns: tuple[tuple[int, ...], ...] = ()
    """Single calls of the variant beside each pair, without the time that others had the processor; empty where no
    limit asked for them."""
    earlier: EarlierRuns | None = None
    """Of the same comparison; None where the machine has read it at most once, or where the programs are not known."""

    @property
    def delayed(self) -> float:
        """Share of the timed time, 0..1, for which others had the processor."""
        delayed_ns = sum(pair.reference_delayed_ns + pair.variant_delayed_ns for pair in self.pairs)
        return delayed_ns / max(1, self._timed_ns)

    @property
    def warming(self) -> float:
        """Share of all calls' time, 0..1, that went into calls which only warm the caches."""
        warming_ns = sum(pair.reference_warming_ns + pair.variant_warming_ns for pair in self.pairs)
        return warming_ns / max(1, warming_ns + self._timed_ns)

    @property
    def _timed_ns(self) -> int:
        return sum(pair.reference_block_ns + pair.variant_block_ns for pair in self.pairs)
