"""Paired timing: two workers take turns in coin-flipped order until the timed limits are decided.

Each turn is a block of warm calls (latency.py), and both workers run on the same core. The statistics of the pairs
stand in statistics/timing.py: they are looked at when the time spent on them has doubled, and at the end of the time
limit. A comparison that stays open divides its time among LAUNCHES launches of both workers, since the place of a
process in memory, and the core that it runs on, are drawn anew by each launch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_modelopt import system
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.controller.timing import best_state, host_lock, machine
from pytest_modelopt.measuring.protocol import Block, Prepared, Usage
from pytest_modelopt.results.timed_pairs import (
    LARGE_BYTES,
    Conditions,
    EarlierRuns,
    TimedCall,
    TimedPair,
    Timing,
    WorkerUse,
)
from pytest_modelopt.statistics.samples import MIN_PAIRS, SEGMENT_S, Samples, latency
from pytest_modelopt.statistics.timing import LAUNCHES

_TICKS_S = 0.1
"""By which the counters of the machine, in ticks of 10 ms for each core, may be behind those of our processes."""


class NotTimed(Exception):
    """A side of the comparison cannot be timed by repeated calls; the message says which, why, and what to do."""


IsOpen = Callable[[Samples, TimedCall], bool]
"""Whether a timed limit is still undecided after these pairs, which are of that call."""
Launch = Callable[[int], tuple[Worker, Worker]]
"""The workers of launch 1, 2, ...: original and variant, loaded. Those of the launch before are used no more."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to time: until decided, within `time_limit_s`; one request may take `step_limit_s`."""

    time_limit_s: float
    step_limit_s: float
    seed: int
    threads: int
    lock_file: Path = field(default_factory=lambda: host_lock.lock_file())
    launches_at_least: int = 1
    """More than 1: also where all limits are decided."""
    single_calls: bool = False
    """Also of the variant's calls one by one, behind each of its blocks."""
    phases: tuple[TimedCall, ...] = ()
    """Parts of a call that are timed in pairs of their own, beside the whole call."""
    earlier: Mapping[TimedCall, EarlierRuns] = field(default_factory=dict)
    """Of the same comparison on this machine."""
    slowdown: float = 0.0
    """A busy wait after each of the variant's calls, as a share of that call's time: a known difference, for tests."""


class Listener:
    """Told how timing goes on, so that it can be shown. This one does nothing."""

    def pairs(self, count: int, seconds: float, speedup: float) -> None:
        """Pairs so far, seconds of timing so far, the last pair's ratio."""

    def waiting(self, seconds: float) -> None:
        """Another comparison on this machine is being timed."""


def time_pairs(launch: Launch, plan: TimingPlan, is_open: IsOpen, listener: Listener) -> Mapping[TimedCall, Timing]:
    """Time pairs of blocks in as many launches as the limits need, at most LAUNCHES: of the whole call, and of each of
    the plan's phases. Those whose limits are open share the time.

    Raises:
        WorkerFailed: a worker ended, hung or refused.
        LockUnavailable: the machine-wide lock could not be had, so nothing was timed.
        NotTimed: calls that are repeated would time something else than the model.
    """
    pairs = PairedTiming(plan, is_open, listener)
    for number in range(1, LAUNCHES + 1):
        if pairs.take_launch(number, *launch(number)):
            break
    return pairs.timings()


@dataclass
class _Series:
    """The pairs of one call so far."""

    call: TimedCall
    pairs: list[TimedPair] = field(default_factory=list)
    variant_calls_ns: list[tuple[int, ...]] = field(default_factory=list)
    """Single calls behind each of the variant's blocks."""
    seconds: float = 0.0
    """Spent on them."""
    next_look_s: float = SEGMENT_S
    is_decided: bool = False


class PairedTiming:
    """One comparison: its pairs so far, and what is known about the machine meanwhile. Its launches may lie apart."""

    def __init__(self, plan: TimingPlan, is_open: IsOpen, listener: Listener) -> None:
        self._plan, self._is_open, self._listener = plan, is_open, listener
        self._coin = random.Random(plan.seed)
        self._series = [_Series(call) for call in ("whole", *plan.phases)]
        self._are_large: bool | None = None
        self._canary_at_best_ns: int | None = None
        self._prepare_s = 0.0
        self._waited_s = 0.0
        self._held_ms: list[tuple[int, int]] = []
        self._load: float | None = None
        self._passed: machine.Reading | None = None
        self._own_processor_s = 0.0
        self._usages: list[tuple[Usage, Usage]] = []

    def take_launch(self, number: int, original: Worker, variant: Worker) -> bool:
        """Take the pairs of launch `number`, while no other comparison is timed on this machine; whether it was the
        last one that is needed. Raises what `time_pairs` raises."""
        with host_lock.alone(self._plan.lock_file, host_lock.WAIT_LIMIT_S, self._listener.waiting) as held:
            self._waited_s += held.waited_s
            is_last = self._take_launch(number, original, variant) or number == LAUNCHES
            self._held_ms.append(held.span_ms)
            return is_last

    def _take_launch(self, number: int, original: Worker, variant: Worker) -> bool:
        if self._load is None:
            self._load = machine.load()
        self._prepare(original, variant)
        before, processor = machine.read(), time.process_time()
        spent_before, ends_comparison = self._seconds, False
        still_open = [each for each in self._series if not each.is_decided or number <= self._plan.launches_at_least]
        for series in still_open:
            series.is_decided = False
        while still_open:
            series = min(still_open, key=lambda each: each.seconds)
            self._take_pair(number, series, original, variant)
            if series.is_decided:
                still_open.remove(series)
            is_spent = self._seconds >= self._plan.time_limit_s and all(each.pairs for each in self._series)
            ends_comparison = is_spent or (not still_open and number >= self._plan.launches_at_least)
            is_share = number < LAUNCHES and self._seconds - spent_before >= self._plan.time_limit_s / LAUNCHES
            if is_spent or (is_share and all(each.pairs for each in self._series)):
                break
        self._passed = _added(self._passed, machine.read().since(before))
        self._own_processor_s += time.process_time() - processor
        self._close_launch(original, variant)
        self._note_canary(number)
        return ends_comparison

    @property
    def _seconds(self) -> float:
        """Spent on all pairs."""
        return sum(each.seconds for each in self._series)

    def _take_pair(self, launch: int, series: _Series, original: Worker, variant: Worker) -> None:
        start, spent_before = time.monotonic(), series.seconds
        pair = self._pair(launch, series, original, variant)
        series.pairs.append(pair)
        series.seconds = spent_before + time.monotonic() - start
        if series.call == "whole":
            self._listener.pairs(len(series.pairs), self._seconds, pair.reference_ns / pair.variant_ns)
        series.is_decided = self._is_decided(series)

    def _note_canary(self, launch: int) -> None:
        """What this launch says about the best state of the machine, for this comparison and for those to come."""
        pairs = [pair for each in self._series for pair in each.pairs]
        found = [pair.canary_ns for pair in pairs if pair.launch == launch and pair.canary_ns]
        if len(found) >= MIN_PAIRS:
            self._canary_at_best_ns = best_state.note_canary(self._work, round(latency(found)))

    @property
    def _work(self) -> str:
        return best_state.behind_blocks(self._plan.threads, are_large=bool(self._are_large))

    def _prepare(self, original: Worker, variant: Worker) -> None:
        """Put both on the same cores and let them make their first calls."""
        start = time.monotonic()
        share_cores((original, variant), self._plan.threads, self._plan.step_limit_s)
        weights_bytes = 0
        for worker, slowdown in ((original, 0.0), (variant, self._plan.slowdown)):
            asked: dict[str, Any] = {"slowdown": slowdown}
            if self._plan.phases:
                asked["phases"] = self._plan.phases
            prepared: Prepared = worker.request("prepare_timing", limit_s=self._plan.step_limit_s, **asked)
            if prepared.why_not:
                raise NotTimed(f"the {worker.variant.label} {prepared.why_not}")
            weights_bytes = max(weights_bytes, prepared.weights_bytes)
        if self._are_large is None:
            self._are_large = weights_bytes > LARGE_BYTES
            self._canary_at_best_ns = best_state.canary_at_best_ns(self._work)
        self._prepare_s += time.monotonic() - start

    def _is_decided(self, series: _Series) -> bool:
        """Looks at the pairs only when the time has doubled: each look may err."""
        if series.seconds < series.next_look_s or len(series.pairs) < MIN_PAIRS:
            return False
        series.next_look_s = max(2 * series.next_look_s, series.seconds)
        earlier = self._plan.earlier.get(series.call)
        samples = Samples.of(
            series.pairs, self._canary_at_best_ns, series.variant_calls_ns, earlier, are_large=bool(self._are_large)
        )
        return not self._is_open(samples, series.call)

    def _pair(self, launch: int, series: _Series, original: Worker, variant: Worker) -> TimedPair:
        at_ms, variant_first = int(1000 * series.seconds), self._coin.random() < 0.5
        single_calls = self._plan.single_calls and series.call == "whole"
        blocks: dict[Worker, Block] = {}
        for worker in (variant, original) if variant_first else (original, variant):
            asked: dict[str, Any] = {"call": series.call} if self._plan.phases else {}
            if single_calls and worker is variant:
                asked["single_calls"] = True
            blocks[worker] = worker.request("block", limit_s=self._plan.step_limit_s, **asked)
        one, other = blocks[original], blocks[variant]
        if single_calls:
            series.variant_calls_ns.append(other.calls_ns)
        return TimedPair(
            launch=launch,
            at_ms=at_ms,
            variant_first=variant_first,
            reference_ns=one.call_ns,
            variant_ns=other.call_ns,
            reference_calls=one.calls,
            variant_calls=other.calls,
            reference_block_ns=one.elapsed_ns,
            variant_block_ns=other.elapsed_ns,
            reference_warming_ns=one.warming_ns,
            variant_warming_ns=other.warming_ns,
            canary_ns=(one.canary_ns + other.canary_ns) // 2,
            reference_delayed_ns=one.delayed_ns,
            variant_delayed_ns=other.delayed_ns,
        )

    def _close_launch(self, original: Worker, variant: Worker) -> None:
        usages = [worker.request("usage", limit_s=self._plan.step_limit_s) for worker in (original, variant)]
        for worker, usage in zip((original, variant), usages, strict=True):
            self._own_processor_s += usage.processor_ns / 1e9
            if usage.threads != self._plan.threads:
                raise WorkerFailed(
                    f"threads: {self._plan.threads} was set, but {usage.threads} were in force after the "
                    f"{worker.variant.label} was timed: its code sets the number itself (torch.set_num_threads); "
                    "remove that, or state the same number as `threads`",
                    worker.output(),
                )
            if usage.recognized:
                raise NotTimed(f"the {worker.variant.label} {usage.recognized}")
        self._usages.append((usages[0], usages[1]))

    def timings(self) -> Mapping[TimedCall, Timing]:
        conditions = self._conditions()
        return {
            each.call: Timing(
                pairs=tuple(each.pairs),
                seed=self._plan.seed,
                seconds=each.seconds,
                prepare_s=self._prepare_s,
                time_limit_s=self._plan.time_limit_s,
                threads=self._plan.threads,
                conditions=conditions,
                variant_calls_ns=tuple(each.variant_calls_ns),
                earlier=self._plan.earlier.get(each.call),
            )
            for each in self._series
        }

    def _conditions(self) -> Conditions:
        assert self._passed is not None
        span_s = max(self._passed.at_s, 1e-9)
        busy_s, stolen_s = self._passed.busy_s, self._passed.stolen_s
        others = _others(busy_s, self._own_processor_s, span_s)
        return Conditions(
            cores=system.cores(),
            load=self._load,
            other_cores=None if others is None else others * system.granted_share(),
            stolen_cores=None if stolen_s is None else stolen_s / span_s,
            throttled_s=self._passed.throttled_s,
            canary_at_best_ns=self._canary_at_best_ns,
            waited_s=self._waited_s,
            reference=_worker_use([original for original, _ in self._usages]),
            variant=_worker_use([variant for _, variant in self._usages]),
            host=system.host(),
            held_ms=tuple(self._held_ms),
            are_large=bool(self._are_large),
        )


def _others(busy_s: float | None, own_s: float, span_s: float) -> float | None:
    """Cores that others kept busy; None where the counters of the machine do not even hold what is our own."""
    if busy_s is None or busy_s < own_s - _TICKS_S - 0.1 * span_s:
        return None
    return max(0.0, busy_s - own_s) / span_s


def _added(one: machine.Reading | None, other: machine.Reading) -> machine.Reading:
    return other if one is None else one.plus(other)


def _worker_use(usages: Sequence[Usage]) -> WorkerUse:
    """The worst of all launches."""
    active = [usage.active_threads for usage in usages if usage.active_threads is not None]
    compilations = max(usage.compilations for usage in usages)
    return WorkerUse(max(active, default=None), max(usage.idle_cores for usage in usages), compilations)


def share_cores(workers: Sequence[Worker], threads: int, step_limit_s: float) -> None:
    """Put the workers on the same cores, as many as they have threads.

    On cores of their own, a neighbour that slows one core down slows one variant down, for seconds at a time, and no
    order of the pairs mends that: identical models then read up to 1.09x in two seconds, on one core up to 1.02x.
    """
    allowed = sorted(system.allowed_cores())
    if not allowed:
        return
    # Not from the run's seed: parallel sessions on one machine would all choose the same cores.
    cores = random.SystemRandom().sample(allowed, min(threads, len(allowed)))
    for worker in workers:
        worker.request("pin", cores=cores, limit_s=step_limit_s)
