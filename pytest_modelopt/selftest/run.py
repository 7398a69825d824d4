"""Many trials: how often an identical copy fails and a slowed one does not, and which limit can be used here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles, stdev

from pytest_modelopt.budgets.judge import speedup_samples
from pytest_modelopt.measure.process import Worker
from pytest_modelopt.measure.referee import Listener
from pytest_modelopt.measure.variant import SEED, Variant
from pytest_modelopt.record.model import Environment
from pytest_modelopt.selftest.judging import Control
from pytest_modelopt.selftest.trial import Trial, trial
from pytest_modelopt.statistics.timing import LAUNCHES

LADDER = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Limits of which the smallest usable one is told."""
ENOUGH = 0.95
"""Share of comparisons that must come to the right verdict."""


@dataclass(frozen=True)
class Plan:
    """What is tried: `repeats` comparisons with an identical copy, and as many with one that is `slowdown` slower.

    `limit` is the most by which a copy may be slower, as a share: 0.1 is 10%.
    """

    variant: Variant
    name: str
    repeats: int
    slowdown: float
    limit: float
    time_limit_s: float


@dataclass(frozen=True)
class Result:
    """The controls, all trials of a plan, and the machine."""

    plan: Plan
    controls: tuple[Control, ...]
    environment: Environment
    identical: tuple[Trial, ...]
    slower: tuple[Trial, ...]

    @property
    def false_failures(self) -> int:
        return sum(each.outcome == "fail" for each in self.identical)

    @property
    def misses(self) -> int:
        """Slowed copies that did not fail."""
        return sum(each.outcome != "fail" for each in self.slower)

    @property
    def failed_controls(self) -> tuple[Control, ...]:
        """Those that do not show what they must; one that does not apply to the model is none of them."""
        return tuple(control for control in self.controls if control.outcome == "NOT ok")

    @property
    def is_good(self) -> bool:
        """The controls hold, and the machine can judge the limit."""
        return not self.failed_controls and self.can_judge

    @property
    def can_judge(self) -> bool:
        """No false failure, and nearly every identical copy passes and nearly every slowed one fails."""
        passed = sum(each.outcome == "pass" for each in self.identical)
        return (
            self.false_failures == 0
            and passed >= ENOUGH * len(self.identical)
            and self.misses <= (1 - ENOUGH) * len(self.slower)
        )

    @property
    def pair_spread(self) -> float | None:
        """Interquartile range of one pair's ratio: the median of all comparisons with an identical copy."""
        quarters = [quantiles(each.timing.speedups(), n=4) for each in self.identical if len(each.timing.pairs) > 1]
        return median(high - low for low, _, high in quarters) if quarters else None

    @property
    def launch_spread(self) -> float | None:
        """Standard deviation of the median ratio of one launch, over all launches with an identical copy."""
        medians = [median(values) for each in self.identical for values in speedup_samples(each.timing).by_launch()]
        return stdev(medians) if len(medians) > 1 else None

    @property
    def smallest_limit(self) -> float | None:
        """The smallest of LADDER that no identical copy breaks and nearly all keep; None where there is none."""
        for slower in LADDER:
            outcomes = [each.outcome_at(slower) for each in self.identical]
            if "fail" not in outcomes and outcomes.count("pass") >= ENOUGH * len(outcomes):
                return slower
        return None


def run(
    plan: Plan,
    controls: tuple[Control, ...],
    folder: Path,
    on_trial: Callable[[str, int], None],
    listener: Listener,
) -> Result:
    """Identical and slowed copies in turns. `on_trial(kind, number)` is called before each comparison."""
    identical: list[Trial] = []
    slower: list[Trial] = []
    for number in range(1, plan.repeats + 1):
        for kind, slowdown, trials in (("identical", 0.0, identical), ("slower", plan.slowdown, slower)):
            on_trial(kind, number)
            trials.append(
                trial(
                    plan.variant,
                    slowdown=slowdown,
                    min_speedup=1 / (1 + plan.limit),
                    time_limit_s=plan.time_limit_s,
                    folder=folder,
                    seed=SEED + number,
                    launches_at_least=LAUNCHES,
                    listener=listener,
                )
            )
    return Result(plan, controls, _environment(plan.variant, folder), tuple(identical), tuple(slower))


def _environment(variant: Variant, folder: Path) -> Environment:
    worker = Worker(replace(variant, recipe=None), folder, "environment")
    try:
        environment: Environment = worker.request("environment", limit_s=60.0)
    finally:
        worker.close()
    return environment


def outcomes(trials: Sequence[Trial]) -> tuple[int, int, int]:
    """How many failed, passed, and stayed inconclusive."""
    found = [each.outcome for each in trials]
    return found.count("fail"), found.count("pass"), found.count("inconclusive")
