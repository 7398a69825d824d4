"""One comparison whose truth is known, or that is repeated, by the gate's own workers, pairs and verdicts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt.limits.latency import speedup_of
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.controller.timing.host_lock import LockUnavailable
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener, NotTimed, TimingPlan, time_pairs
from pytest_modelopt.measuring.variant import SEED, Variant
from pytest_modelopt.results.timed_pairs import TimedCall, Timing
from pytest_modelopt.statistics.samples import Samples
from pytest_modelopt.statistics.timing import Decision, Estimate, alpha_fail, decide_at_least, speedup


@dataclass(frozen=True)
class Trial:
    """One comparison of the original with a copy of it, or with a variant."""

    timing: Timing

    @property
    def estimate(self) -> Estimate:
        return speedup_of(self.timing)

    def outcome(self, min_speedup: float) -> Decision:
        """What a limit comes to with the pairs of this trial."""
        return decide_at_least(self.estimate, min_speedup, alpha_fail=alpha_fail(timed_limits=1))


def trial(
    variant: Variant,
    *,
    slowdown: float = 0.0,
    min_speedup: float | None,
    time_limit_s: float,
    folder: Path,
    seed: int = SEED,
    step_limit_s: float = 600.0,
    launches_at_least: int = 1,
    listener: Listener | None = None,
) -> Trial:
    """Compare the original of `variant` with it; a variant without a recipe is a copy of the original.

    Every call of the variant takes `slowdown` longer (0.15 is 15%). `min_speedup`: the comparison ends when that limit
    is decided; None: it takes all its time. `folder` is for the workers' output. Raises WorkerFailed where the model
    cannot be loaded or timed.
    """

    def is_open(samples: Samples, call: TimedCall) -> bool:
        del call  # the whole one, which alone is timed
        if min_speedup is None:
            return True
        return decide_at_least(speedup(samples), min_speedup, alpha_fail=alpha_fail(1)) == "inconclusive"

    plan = TimingPlan(
        time_limit_s, step_limit_s, seed, variant.threads, launches_at_least=launches_at_least, slowdown=slowdown
    )
    with _pairs_of_workers(variant, folder, step_limit_s) as launch:
        try:
            timing = time_pairs(launch, plan, is_open, listener or Listener())["whole"]
        except (LockUnavailable, NotTimed) as error:
            raise WorkerFailed(str(error), "") from None
    return Trial(timing)


@contextlib.contextmanager
def _pairs_of_workers(
    variant: Variant, folder: Path, step_limit_s: float
) -> Iterator[Callable[[int], tuple[Worker, Worker]]]:
    """Two fresh workers for each launch: the original, and the variant."""
    alive: list[Worker] = []

    def end() -> None:
        while alive:
            alive.pop().close()

    def launch(number: int) -> tuple[Worker, Worker]:
        del number
        end()
        for name, side in (("original", variant.original), ("variant", variant)):
            worker = Worker(side, folder, name)
            alive.append(worker)
            worker.request("load", limit_s=step_limit_s)
            if side.recipe is not None:
                worker.request("optimize", limit_s=step_limit_s)
        return alive[0], alive[1]

    try:
        yield launch
    finally:
        end()
