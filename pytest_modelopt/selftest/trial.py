"""One comparison of an original with a copy of itself, by the gate's own workers, pairs and verdicts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pytest_modelopt.budgets.judge import lacking_timed, speedup_samples
from pytest_modelopt.measure.machine import LockUnavailable
from pytest_modelopt.measure.process import Worker, WorkerFailed
from pytest_modelopt.measure.referee import Listener, TimingPlan, time_pairs
from pytest_modelopt.measure.variant import SEED, Variant
from pytest_modelopt.record.model import Timing
from pytest_modelopt.record.verdicts import Limit
from pytest_modelopt.statistics.timing import (
    ALPHA_PASS,
    Decision,
    Need,
    Samples,
    alpha_fail,
    decide_at_least,
)


@dataclass(frozen=True)
class Trial:
    """One comparison of the original with a copy of it."""

    outcome: Decision
    timing: Timing
    wall_s: float
    """All of it, starting and loading the workers included."""

    @property
    def estimate(self) -> float:
        return median(self.timing.speedups())

    def outcome_at(self, slower: float) -> Decision:
        """What a limit of "at most `slower` (0.1 is 10%) slower" would have come to with the same pairs."""
        return _decide(self.timing, 1 / (1 + slower))


def trial(
    variant: Variant,
    *,
    slowdown: float,
    min_speedup: float,
    time_limit_s: float,
    folder: Path,
    seed: int = SEED,
    step_limit_s: float = 600.0,
    launches_at_least: int = 1,
    listener: Listener | None = None,
) -> Trial:
    """Compare the original of `variant` with a copy whose every call takes `slowdown` longer (0.15 is 15%).

    `folder` is for the workers' output. Raises WorkerFailed where the model cannot be loaded or timed.
    """
    start = time.monotonic()
    limit = _limit(min_speedup)

    def lacking(speedups: Samples, latencies_s: Samples) -> Need:
        return lacking_timed(limit, speedups, latencies_s, timed_limits=1)

    plan = TimingPlan(
        time_limit_s, step_limit_s, seed, variant.threads, launches_at_least=launches_at_least, slowdown=slowdown
    )
    with _pairs_of_workers(variant.original, folder, step_limit_s) as launch:
        try:
            timing = time_pairs(launch, plan, lacking, listener or Listener())
        except LockUnavailable as error:
            raise WorkerFailed(str(error), "") from None
    return Trial(_decide(timing, min_speedup), timing, time.monotonic() - start)


@contextlib.contextmanager
def _pairs_of_workers(
    variant: Variant, folder: Path, step_limit_s: float
) -> Iterator[Callable[[int], tuple[Worker, Worker]]]:
    """Two fresh workers of the same variant for each launch."""
    alive: list[Worker] = []

    def end() -> None:
        while alive:
            alive.pop().close()

    def launch(number: int) -> tuple[Worker, Worker]:
        del number
        end()
        for name in ("original", "copy"):
            worker = Worker(variant, folder, name)
            alive.append(worker)
            worker.request("load", limit_s=step_limit_s)
        return alive[0], alive[1]

    try:
        yield launch
    finally:
        end()


def _limit(min_speedup: float) -> Limit:
    return Limit("min_speedup", min_speedup, f"{min_speedup:.3g}x", "error", "selftest", 0)


def _decide(timing: Timing, min_speedup: float) -> Decision:
    return decide_at_least(
        speedup_samples(timing), min_speedup, alpha_pass=ALPHA_PASS, alpha_fail=alpha_fail(timed_limits=1)
    )
