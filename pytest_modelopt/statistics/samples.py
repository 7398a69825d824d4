"""What a comparison is judged by: the times of each pair, when it was taken, and what is known of the machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from pytest_modelopt.statistics.state_slope import Deviations

FASTEST = 0.2
"""The share of a program's blocks that its latency is taken from."""
SEGMENT_S = 1.0
MIN_PAIRS = 4
"""Of a segment, and of a comparison that decides anything."""
CANARY_TOLERANCE = 0.05
"""By which the canary may differ in one and the same state, as a logarithm."""
STARVED = 0.2
"""Error of a figure whose blocks others had interrupted all of the time: a model read 0.77x at a load of 12 on two
cores, and 0.90x on an idle machine."""
ORIGINAL_ALONE, ORIGINAL_TOLERANCE = 0.02, 0.03
"""By which the original differs from run to run though the machine is in one state, by its place in memory: standard
deviation, and by how much a run is behind the fastest fifth all the same."""
RANGE = 2.5
"""Standard deviations of the original's time in earlier runs: in such a range they have met the machine's states."""
MOST_BEHIND = 1.0
"""No state of a machine makes it slower by more (a factor of 2.7)."""


class Pair(Protocol):
    """What is needed of a pair of blocks (`record.model.TimedPair`)."""

    @property
    def launch(self) -> int: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def reference_ns(self) -> int: ...
    @property
    def variant_ns(self) -> int: ...
    @property
    def reference_block_ns(self) -> int: ...
    @property
    def variant_block_ns(self) -> int: ...
    @property
    def reference_delayed_ns(self) -> int: ...
    @property
    def variant_delayed_ns(self) -> int: ...
    @property
    def canary_ns(self) -> int: ...


class Earlier(Protocol):
    """What is needed of earlier runs of the same comparison (`results.timed_pairs.EarlierRuns`)."""

    @property
    def freedom(self) -> int: ...
    @property
    def speedup(self) -> float: ...
    @property
    def latency(self) -> float: ...
    @property
    def own(self) -> int: ...
    @property
    def original(self) -> float: ...
    @property
    def speedup_with_original(self) -> float: ...
    @property
    def latency_with_original(self) -> float: ...
    @property
    def fastest_s(self) -> float | None: ...
    @property
    def canary_at_fastest_ns(self) -> float | None: ...


NOTHING = Deviations(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Samples:
    """Of each pair: seconds of one call of either side, the launch, and the seconds since the first pair began."""

    originals_s: Sequence[float]
    variants_s: Sequence[float]
    launches: Sequence[int]
    moments_s: Sequence[float]
    canaries_ns: Sequence[float] = ()
    """What the canary took beside each pair; empty where there is none."""
    canary_at_best_ns: float | None = None
    """What it takes in the best state that the machine is known to have."""
    delays: Sequence[tuple[float, float]] = ()
    """The share of each pair's blocks, original and variant, for which others had the processor; empty: none."""
    variant_calls_s: Sequence[Sequence[float]] = ()
    """Single calls of the variant beside each pair; empty where they were not timed."""
    earlier: Earlier | None = None
    """Earlier runs of the same comparison on the machine; None where there are not two."""
    are_large: bool = False
    """Whether a side holds more than the caches do."""

    def __post_init__(self) -> None:
        if len({len(self.originals_s), len(self.variants_s), len(self.launches), len(self.moments_s)}) > 1:
            raise ValueError("each pair needs both latencies, a launch and a moment")

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        canary_at_best_ns: float | None = None,
        variant_calls_ns: Sequence[Sequence[int]] = (),
        earlier: Earlier | None = None,
        *,
        are_large: bool = False,
    ) -> Samples:
        """Of the pairs of a comparison, in their order."""
        return cls(
            [pair.reference_ns / 1e9 for pair in pairs],
            [pair.variant_ns / 1e9 for pair in pairs],
            [pair.launch for pair in pairs],
            [pair.at_ms / 1e3 for pair in pairs],
            [pair.canary_ns for pair in pairs if pair.canary_ns],
            canary_at_best_ns,
            [
                (pair.reference_delayed_ns / pair.reference_block_ns, pair.variant_delayed_ns / pair.variant_block_ns)
                for pair in pairs
            ],
            [[call / 1e9 for call in calls] for calls in variant_calls_ns],
            earlier,
            are_large,
        )

    @property
    def starvation(self) -> float:
        """What other processes in the middle of the fastest blocks may have changed, as a share."""
        if not self.delays:
            return 0.0
        sides = zip((self.originals_s, self.variants_s), zip(*self.delays, strict=True), strict=True)
        return STARVED * max(_delayed(values_s, delays) for values_s, delays in sides)

    @property
    def of_speedup(self) -> Deviations:
        """Of the speedup in earlier runs."""
        runs = self.earlier
        if runs is None:
            return NOTHING
        return Deviations(runs.speedup, runs.speedup_with_original, runs.original, self._alone, self._alone)

    @property
    def of_latency(self) -> Deviations:
        """Of the variant's latency in earlier runs."""
        runs = self.earlier
        return (
            NOTHING
            if runs is None
            else Deviations(runs.latency, runs.latency_with_original, runs.original, self._alone)
        )

    @property
    def _alone(self) -> float:
        """Squared deviations of the original's latency that are expected of runs in one state."""
        return max(0, self.earlier.own - 1) * ORIGINAL_ALONE**2 if self.earlier is not None else 0.0

    @property
    def slowness(self) -> float:
        """How far the machine was from its best state, as the logarithm of the canary's time; 0 where nothing tells."""
        return self._slowness(fast_log(self.canaries_ns)) if self.canaries_ns else 0.0

    @property
    def slowness_before(self) -> float:
        """The same of the fastest earlier runs of these programs: they may have met slow states only."""
        canary_ns = self.earlier.canary_at_fastest_ns if self.earlier is not None else None
        return self._slowness(math.log(canary_ns)) if canary_ns is not None and canary_ns > 0 else 0.0

    def _slowness(self, canary_log: float) -> float:
        best_ns = self.canary_at_best_ns
        if best_ns is None or best_ns <= 0:  # a record may hold anything
            return 0.0
        return max(0.0, canary_log - math.log(best_ns) - CANARY_TOLERANCE)

    @property
    def behind(self) -> float | None:
        """How much longer the original took than in the fastest earlier runs of these programs, as a logarithm, beyond
        ORIGINAL_TOLERANCE; None where there are none."""
        runs = self.earlier
        if runs is None or runs.fastest_s is None or runs.fastest_s <= 0:
            return None
        return self.behind_of(range(len(self)))

    @property
    def met(self) -> float:
        """How far behind the fastest of them earlier runs have been: beyond that nobody knows how figures follow."""
        runs = self.earlier
        return 0.0 if runs is None or runs.own < 2 else RANGE * math.sqrt(max(0.0, runs.original) / (runs.own - 1))

    def behind_of(self, pairs: Sequence[int]) -> float:
        """The same of some pairs, where there are such runs."""
        assert self.earlier is not None
        assert self.earlier.fastest_s is not None
        beyond = fast_log([self.originals_s[i] for i in pairs]) - math.log(self.earlier.fastest_s)
        return min(MOST_BEHIND, max(0.0, beyond - ORIGINAL_TOLERANCE))

    def __len__(self) -> int:
        return len(self.launches)

    def segments(self) -> list[range]:
        """Indices of the pairs of each segment. What is left of a launch belongs to the segment before it."""
        return [segment for launch in self.by_launch() for segment in _divided(launch, self.moments_s)]

    def by_launch(self) -> list[range]:
        """Indices of the pairs of each launch."""
        starts = [i for i in range(len(self)) if i == 0 or self.launches[i] != self.launches[i - 1]]
        return [range(start, end) for start, end in zip(starts, [*starts[1:], len(self)], strict=True)]


def latency(samples: Sequence[float]) -> float:
    """Seconds of one call on the machine left alone: the geometric mean of the fastest blocks."""
    return math.exp(fast_log(samples))


def fast_log(values_s: Sequence[float]) -> float:
    ordered = sorted(values_s)
    return fmean(math.log(value) for value in ordered[: max(1, math.ceil(FASTEST * len(ordered)))])


def _delayed(values_s: Sequence[float], delays: Sequence[float]) -> float:
    fastest = sorted(zip(values_s, delays, strict=True))[: max(1, math.ceil(FASTEST * len(delays)))]
    return fmean(delay for _, delay in fastest)


def _divided(launch: range, moments_s: Sequence[float]) -> Iterator[range]:
    """Segments of at least SEGMENT_S and MIN_PAIRS each; the last one is as much longer as it has to be."""
    starts = [launch.start]
    for i in launch:
        if moments_s[i] - moments_s[starts[-1]] >= SEGMENT_S and i - starts[-1] >= MIN_PAIRS:
            starts.append(i)
    if len(starts) > 1 and (
        launch.stop - starts[-1] < MIN_PAIRS or moments_s[launch.stop - 1] - moments_s[starts[-1]] < SEGMENT_S / 2
    ):
        starts.pop()
    yield from (range(start, end) for start, end in zip(starts, [*starts[1:], launch.stop], strict=True))
