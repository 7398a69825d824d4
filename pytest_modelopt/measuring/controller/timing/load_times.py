"""Fresh processes in turns: how long each takes from the start of loading a saved variant to its first answer.

Both sides are loaded from what they were saved as, and each process is a launch of its own. Before its clock runs, a
process has imported torch, the runtime, torch's compiler where the variant uses it, and all modules that the saved file
names, those of the project among them; and the first process of each side is not counted, so that the files are in the
system's cache. What is counted is what differs between variants: reading and unpacking the weights, starting a session
of a runtime, compiling, and one whole call.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pytest_modelopt import system
from pytest_modelopt.measuring.controller.fresh_processes import require_alive, saved_files
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.timing import best_state, host_lock, machine
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener, TimingPlan, share_cores
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.protocol import FirstAnswer, Sample
from pytest_modelopt.results.timed_pairs import Conditions, TimedPair, Timing, WorkerUse
from pytest_modelopt.statistics.samples import MIN_PAIRS, latency

MOST_PAIRS = 4 * MIN_PAIRS
"""Of a comparison that stays undecided; it is looked at where their number has doubled."""
IsOpen = Callable[[Timing], bool]
"""Whether a limit on loading is still undecided after these pairs."""


@dataclass(frozen=True)
class _Side:
    measured: Measured
    files: dict[str, str]
    answer: Sample
    compiles: bool


class NotLoaded(Exception):
    """A side cannot be loaded in a fresh process as it was saved; the message says which and why."""

    def __init__(self, measured: Measured, why: str) -> None:
        super().__init__(f"the {measured.variant.label} has no load time: {why}")


def time_loading(
    context: WorkerContext,
    sides: tuple[Measured, Measured],
    name: str,
    plan: TimingPlan,
    is_open: IsOpen,
    listener: Listener,
) -> Timing:
    """Pairs of processes, of original and variant, until the limits are decided or the time of `plan` is over.

    Raises:
        NotLoaded: see there.
        LockUnavailable: the machine-wide lock could not be had, so nothing was timed.
        Failed: a variant's own worker died, which later steps need.
    """
    with saved_files(context, sides[0], name) as first, saved_files(context, sides[1], name) as second:
        before, after = _side(context, sides[0], first), _side(context, sides[1], second)
        context.progress.step(name, "timing fresh processes in pairs")
        with host_lock.alone(plan.lock_file, host_lock.WAIT_LIMIT_S, listener.waiting) as held:
            timing = _time(context, before, after, plan, is_open, held.waited_s)
            conditions = replace(timing.conditions, host=system.host(), held_ms=(held.span_ms,))
            return replace(timing, conditions=conditions)


def _time(
    context: WorkerContext, before: _Side, after: _Side, plan: TimingPlan, is_open: IsOpen, waited_s: float
) -> Timing:
    load, counters, start = machine.load(), machine.read(), time.monotonic()
    for side in (before, after):
        _first_answer(context, side, plan)
    prepare_s, coin, begun = time.monotonic() - start, random.Random(plan.seed), time.monotonic()
    conditions = Conditions(
        system.cores(), load, None, None, None, None, waited_s, WorkerUse(None, 0.0), WorkerUse(None, 0.0)
    )
    timing = Timing((), plan.seed, 0.0, prepare_s, plan.time_limit_s, plan.threads, conditions)
    next_look = MIN_PAIRS
    while len(timing.pairs) < MOST_PAIRS and timing.seconds < plan.time_limit_s:
        variant_first = coin.random() < 0.5
        in_order = (after, before) if variant_first else (before, after)
        answers = [_first_answer(context, side, plan) for side in in_order]
        one, other = reversed(answers) if variant_first else answers
        pair = _pair(len(timing.pairs) + 1, int(1000 * timing.seconds), one, other, variant_first)
        timing = replace(timing, pairs=(*timing.pairs, pair), seconds=time.monotonic() - begun)
        context.progress.beat(f"{len(timing.pairs)} pairs in {timing.seconds:.0f} s")
        if len(timing.pairs) == next_look:
            next_look *= 2
            if not is_open(_with_conditions(timing, counters)):
                break
    return _with_conditions(timing, counters)


def _side(context: WorkerContext, measured: Measured, files: dict[str, str]) -> _Side:
    try:
        answer = context.request(measured.worker, "answer")
        return _Side(measured, files, answer, context.request(measured.worker, "has_compiler"))
    except WorkerFailed as failed:
        require_alive(measured, failed, "timing")
        raise NotLoaded(measured, failed.message) from None


def _first_answer(context: WorkerContext, side: _Side, plan: TimingPlan) -> FirstAnswer:
    measured = side.measured
    assert measured.measurement is not None
    try:
        worker = context.new_worker(measured.variant)
        try:
            share_cores((worker,), plan.threads, plan.step_limit_s)
            runtime = measured.measurement.runtime
            asked: dict[str, Any] = {**side.files, "runtime": runtime, "compiles": side.compiles}
            found: FirstAnswer = context.request(worker, "first_answer", **asked)
        finally:
            worker.close()
    except WorkerFailed as failed:
        raise NotLoaded(measured, failed.message) from None
    if not side.answer.is_like(found.answer):
        raise NotLoaded(measured, "saved and loaded again it answers differently, so another model would be timed")
    return found


def _pair(number: int, at_ms: int, one: FirstAnswer, other: FirstAnswer, variant_first: bool) -> TimedPair:
    return TimedPair(
        launch=number,
        at_ms=at_ms,
        variant_first=variant_first,
        reference_ns=max(1, one.elapsed_ns - one.delayed_ns),
        variant_ns=max(1, other.elapsed_ns - other.delayed_ns),
        reference_calls=1,
        variant_calls=1,
        reference_block_ns=one.elapsed_ns,
        variant_block_ns=other.elapsed_ns,
        reference_warming_ns=0,
        variant_warming_ns=0,
        canary_ns=(one.canary_ns + other.canary_ns) // 2,
        reference_delayed_ns=one.delayed_ns,
        variant_delayed_ns=other.delayed_ns,
    )


def _with_conditions(timing: Timing, before: machine.Reading) -> Timing:
    passed, canaries = machine.read().since(before), [pair.canary_ns for pair in timing.pairs if pair.canary_ns]
    work = best_state.behind_loading(timing.threads)
    best_ns = best_state.canary_at_best_ns(work)
    if len(canaries) >= MIN_PAIRS:
        best_ns = best_state.note_canary(work, round(latency(canaries)))
    stolen = None if passed.stolen_s is None else passed.stolen_s / max(passed.at_s, 1e-9)
    conditions = replace(
        timing.conditions, canary_at_best_ns=best_ns, stolen_cores=stolen, throttled_s=passed.throttled_s
    )
    return replace(timing, conditions=conditions)
