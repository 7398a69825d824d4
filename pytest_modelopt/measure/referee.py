"""The referee: lets two workers take turns in coin-flipped order until the timed limits are decided.

A block is an untimed call (a few, where calls are short) that warms the caches, and then the timed calls: one where a
call takes a millisecond or more, as many as fill a millisecond below that. Both workers run on the same core. The
machine's speed wanders slowly, so taking turns quickly buys more than averaging longer (benchmarks/RESULTS.md).

Where a process lies in memory makes it faster or slower for as long as it lives. A limit near the estimate therefore
needs pairs from several launches of both workers.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_modelopt.measure import machine
from pytest_modelopt.measure.latency import TARGET_BLOCK_NS
from pytest_modelopt.measure.process import Worker, WorkerFailed
from pytest_modelopt.measure.replies import Usage
from pytest_modelopt.record.model import Conditions, TimedPair, Timing, WorkerUse
from pytest_modelopt.statistics.timing import LAUNCHES, Need, Samples

ENOUGH_PAIRS = 50
"""Pairs that each launch takes, within ENOUGH_SECONDS, so that the printed interval says something."""
ENOUGH_SECONDS = 2.0
"""Timing beyond this only goes on for a limit that is still undecided."""
_LOOKS_PER_DOUBLING = 40
_TICKS_S = 0.1
"""By which the counters of the machine, in ticks of 10 ms for each core, may be behind those of our processes."""

Lacking = Callable[[Samples, Samples], Need]
"""(speedups, variant latencies in seconds) -> what the timed limits together lack for their decisions."""
Launch = Callable[[int], tuple[Worker, Worker]]
"""The workers of launch 1, 2, ...: original and variant, loaded. Those of the launch before are used no more."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to time: until decided, within `time_limit_s`; one request may take `step_limit_s`."""

    time_limit_s: float
    step_limit_s: float
    seed: int
    threads: int
    lock_file: Path = field(default_factory=lambda: machine.lock_file())
    launches_at_least: int = 1
    """More than 1: also where no limit is near."""
    slowdown: float = 0.0
    """A busy wait after each of the variant's calls, as a share of that call's time: a known difference, for tests."""
    block_ns: int = TARGET_BLOCK_NS


class Listener:
    """Told how timing goes on, so that it can be shown. This one does nothing."""

    def pairs(self, count: int, seconds: float, speedup: float) -> None:
        """Pairs so far, seconds of timing so far, the last pair's ratio."""

    def waiting(self, seconds: float) -> None:
        """Another comparison on this machine is being timed."""


def time_pairs(launch: Launch, plan: TimingPlan, lacking: Lacking, listener: Listener) -> Timing:
    """Time pairs of blocks in as many launches as the limits need, at most LAUNCHES.

    Raises:
        WorkerFailed: a worker ended, hung or refused.
        LockUnavailable: the machine-wide lock could not be had, so nothing was timed.
    """
    run = _Run(plan, lacking, listener)
    for number in range(1, LAUNCHES + 1):
        original, variant = launch(number)
        with machine.alone(plan.lock_file, machine.WAIT_LIMIT_S, listener.waiting) as waited_s:
            run.waited_s += waited_s
            is_last = run.time_launch(number, original, variant)
        if is_last:
            break
    return run.timing()


class _Run:
    """Pairs so far, and what is known about the machine meanwhile."""

    def __init__(self, plan: TimingPlan, lacking: Lacking, listener: Listener) -> None:
        self._plan, self._lacking, self._listener = plan, lacking, listener
        self._coin = random.Random(plan.seed)
        self._calls: tuple[int, int] | None = None
        self._pairs: list[TimedPair] = []
        self._speedups: list[float] = []
        self._latencies_s: list[float] = []
        self._launches: list[int] = []
        self._seconds = self._prepare_s = 0.0
        self.waited_s = 0.0
        self._load: float | None = None
        self._passed: machine.Reading | None = None
        self._own_processor_s = 0.0
        self._usages: list[tuple[Usage, Usage]] = []

    def time_launch(self, number: int, original: Worker, variant: Worker) -> bool:
        """Take the pairs of one launch; whether it was the last one."""
        if not self._pairs:
            self._load = machine.load()
        calls_original, calls_variant = self._prepare(original, variant)
        before, processor = machine.read(), time.process_time()
        start, spent_before = time.monotonic(), self._seconds
        taken = next_look = 0
        step: Literal["go on", "next", "over"]
        while True:
            pair = _one_pair(number, original, variant, self._coin.random() < 0.5, self._plan.step_limit_s)
            taken += 1
            self._pairs.append(pair)
            self._launches.append(number)
            self._latencies_s.append(pair.variant_ns / calls_variant / 1e9)
            self._speedups.append(pair.original_ns / calls_original / 1e9 / self._latencies_s[-1])
            in_launch = time.monotonic() - start
            self._seconds = spent_before + in_launch
            self._listener.pairs(len(self._pairs), self._seconds, self._speedups[-1])
            if self._seconds >= self._plan.time_limit_s:
                step = "over"
                break
            if taken < next_look:
                continue
            next_look = taken + 1 + taken // _LOOKS_PER_DOUBLING  # looking costs time that pairs could use
            step = self._look(number, taken, in_launch)
            if step != "go on":
                break
        self._passed = _added(self._passed, machine.read().since(before))
        self._own_processor_s += time.process_time() - processor
        self._close_launch(original, variant)
        return step == "over"

    def _prepare(self, original: Worker, variant: Worker) -> tuple[int, int]:
        """Warm both up on the same cores; (timed calls in one block of the original, of the variant)."""
        start = time.monotonic()
        _share_cores(original, variant, self._plan)
        calls = self._calls or (None, None)
        limit_s, block_ns = self._plan.step_limit_s, self._plan.block_ns
        self._calls = (
            original.request("prepare_timing", limit_s=limit_s, calls=calls[0], block_ns=block_ns),
            variant.request(
                "prepare_timing", limit_s=limit_s, calls=calls[1], block_ns=block_ns, slowdown=self._plan.slowdown
            ),
        )
        self._prepare_s += time.monotonic() - start
        return self._calls

    def _look(self, launch: int, pairs: int, seconds: float) -> Literal["go on", "next", "over"]:
        """'go on' with this launch, start the 'next', or it is 'over'."""
        share_s = self._plan.time_limit_s / LAUNCHES
        if pairs < ENOUGH_PAIRS and seconds < min(ENOUGH_SECONDS, share_s):
            return "go on"
        lacking = self._lacking(Samples(self._speedups, self._launches), Samples(self._latencies_s, self._launches))
        if lacking == "nothing":
            return "over" if launch >= self._plan.launches_at_least else "next"
        if launch == LAUNCHES:
            # Otherwise the launches contradict each other, which more pairs would not change.
            return "go on" if lacking == "pairs" else "over"
        return "next" if lacking == "launches" or seconds >= share_s else "go on"

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
        self._usages.append((usages[0], usages[1]))

    def timing(self) -> Timing:
        assert self._calls is not None
        return Timing(
            pairs=tuple(self._pairs),
            original_calls=self._calls[0],
            variant_calls=self._calls[1],
            seed=self._plan.seed,
            seconds=self._seconds,
            prepare_s=self._prepare_s,
            time_limit_s=self._plan.time_limit_s,
            threads=self._plan.threads,
            conditions=self._conditions(),
        )

    def _conditions(self) -> Conditions:
        assert self._passed is not None
        span_s = max(self._passed.at_s, 1e-9)
        busy_s, stolen_s = self._passed.busy_s, self._passed.stolen_s
        return Conditions(
            cores=machine.cores(),
            load=self._load,
            other_cores=_others(busy_s, self._own_processor_s, span_s),
            stolen_cores=None if stolen_s is None else stolen_s / span_s,
            throttled_s=self._passed.throttled_s,
            waited_s=self.waited_s,
            original=_worker_use([original for original, _ in self._usages]),
            variant=_worker_use([variant for _, variant in self._usages]),
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


def _share_cores(original: Worker, variant: Worker, plan: TimingPlan) -> None:
    """Put both workers on the same cores, as many as they have threads.

    On cores of their own, a neighbour that slows one core down slows one variant down, for seconds at a time, and no
    order of the pairs mends that: identical models then read up to 1.09x in two seconds, on one core up to 1.02x.
    """
    if not hasattr(os, "sched_getaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    # Not from the run's seed: parallel sessions on one machine would all choose the same cores.
    cores = random.SystemRandom().sample(allowed, min(plan.threads, len(allowed)))
    for worker in (original, variant):
        worker.request("pin", cores=cores, limit_s=plan.step_limit_s)


def _one_pair(launch: int, original: Worker, variant: Worker, variant_first: bool, limit_s: float) -> TimedPair:
    if variant_first:
        second = variant.request("block", limit_s=limit_s)
        first = original.request("block", limit_s=limit_s)
    else:
        first = original.request("block", limit_s=limit_s)
        second = variant.request("block", limit_s=limit_s)
    return TimedPair(
        launch=launch,
        variant_first=variant_first,
        original_ns=first.elapsed_ns,
        variant_ns=second.elapsed_ns,
        original_switches=first.switches,
        variant_switches=second.switches,
        original_delayed_ns=first.delayed_ns,
        variant_delayed_ns=second.delayed_ns,
    )
