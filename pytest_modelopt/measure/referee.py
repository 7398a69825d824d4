"""The referee: lets two workers take turns in coin-flipped order until the timed limits are decided.

A block is an untimed call (a few, where calls are short) that warms the caches, and then the timed calls: one where a
call takes a millisecond or more, as many as fill a millisecond below that. Both workers run on the same core. The
machine's speed wanders slowly, so taking turns quickly buys more than averaging longer: with calls of 3-5 ms on a
two-core virtual machine, blocks of one call left a standard error of 1.1% after five seconds, blocks of 60 ms 2.3%.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_modelopt.measure.process import Worker
from pytest_modelopt.record.model import TimedPair, Timing

ENOUGH_PAIRS = 50
"""Pairs that a decided comparison still takes, within ENOUGH_SECONDS, so that the printed interval says something."""
ENOUGH_SECONDS = 2.0
"""Timing beyond this only goes on for a limit that is still undecided."""
_LOOKS_PER_DOUBLING = 40

Undecided = Callable[[Sequence[float], Sequence[float]], bool]
"""(speedups, variant latencies in seconds) -> whether some timed limit needs more pairs."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to time: until decided, within `time_limit_s`; one request may take `step_limit_s`."""

    time_limit_s: float
    step_limit_s: float
    seed: int
    threads: int


def time_pairs(
    original: Worker,
    variant: Worker,
    plan: TimingPlan,
    undecided: Undecided,
    on_pairs: Callable[[int, float, float], None] | None = None,
) -> Timing:
    """Time pairs of blocks. `on_pairs(number of pairs, seconds so far, last speedup)` is called as they come."""
    coin = random.Random(plan.seed)
    _share_cores(original, variant, plan)
    calls_original = original.request("prepare_timing", limit_s=plan.step_limit_s)
    calls_variant = variant.request("prepare_timing", limit_s=plan.step_limit_s)
    pairs: list[TimedPair] = []
    speedups: list[float] = []
    latencies_s: list[float] = []
    start = time.monotonic()
    next_look = 1
    while True:
        pairs.append(_one_pair(original, variant, coin.random() < 0.5, plan.step_limit_s))
        latencies_s.append(pairs[-1].variant_ns / calls_variant / 1e9)
        speedups.append(pairs[-1].original_ns / calls_original / 1e9 / latencies_s[-1])
        seconds = time.monotonic() - start
        if on_pairs is not None:
            on_pairs(len(pairs), seconds, speedups[-1])
        if seconds >= plan.time_limit_s:
            break
        if len(pairs) < next_look:
            continue
        next_look = len(pairs) + 1 + len(pairs) // _LOOKS_PER_DOUBLING  # looking costs time that pairs could use
        enough = len(pairs) >= ENOUGH_PAIRS or seconds >= ENOUGH_SECONDS
        if enough and not undecided(speedups, latencies_s):
            break
    return Timing(
        pairs=tuple(pairs),
        original_calls=calls_original,
        variant_calls=calls_variant,
        seed=plan.seed,
        seconds=seconds,
        time_limit_s=plan.time_limit_s,
        threads=plan.threads,
    )


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


def _one_pair(original: Worker, variant: Worker, variant_first: bool, limit_s: float) -> TimedPair:
    if variant_first:
        variant_ns, variant_preempted = variant.request("block", limit_s=limit_s)
        original_ns, original_preempted = original.request("block", limit_s=limit_s)
    else:
        original_ns, original_preempted = original.request("block", limit_s=limit_s)
        variant_ns, variant_preempted = variant.request("block", limit_s=limit_s)
    return TimedPair(variant_first, original_ns, variant_ns, original_preempted, variant_preempted)
