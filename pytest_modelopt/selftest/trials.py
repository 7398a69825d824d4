"""Many trials: how often an identical copy fails and a slowed one does not, and which limit can be used here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean, median, stdev

from pytest_modelopt.limits.latency import interval_of
from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener
from pytest_modelopt.measuring.variant import SEED, Variant
from pytest_modelopt.results.record import Environment
from pytest_modelopt.selftest.control_verdicts import Control
from pytest_modelopt.selftest.trial import Trial, trial
from pytest_modelopt.statistics.timing import LAUNCHES, Decision

LADDER = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Limits of which the smallest usable one is told."""
ENOUGH = 0.95
"""Share of comparisons that must come to the right verdict."""
RECIPE_REPEATS, RECIPE_SECONDS = 3, 5.0
"""Comparisons of each of the model's own recipes, and the timing of each."""


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
    recipes: tuple[Variant, ...] = ()
    """The model's own variants, each of which is compared RECIPE_REPEATS times with the original."""


@dataclass(frozen=True)
class OwnRecipe:
    """What repeated comparisons of one of the model's variants say about the limits that this machine can judge."""

    recipe: str
    trials: tuple[Trial, ...]

    @property
    def speedups(self) -> list[float]:
        return [each.estimate.figure for each in self.trials]

    @property
    def spread(self) -> float:
        """Standard deviation of an estimate of one second, as a share: the median of the comparisons."""
        return median(each.estimate.scale for each in self.trials)

    @property
    def distances(self) -> tuple[float, float]:
        """The least distances, as shares of the speedup, of a lower limit that passes and of a higher one that fails:
        those of the comparison that knew least."""
        ends = [(each.estimate.figure, *interval_of(each.estimate, 1)) for each in self.trials]
        return max(1 - low / figure for figure, low, _ in ends), max(high / figure - 1 for figure, _, high in ends)

    @property
    def outside(self) -> int:
        """Comparisons whose interval does not hold the mean of all of them."""
        mean = geometric_mean(self.speedups)
        intervals = [interval_of(each.estimate, 1) for each in self.trials]
        return sum(not low <= mean <= high for low, high in intervals)


@dataclass(frozen=True)
class Result:
    """The controls, all trials of a plan, and the machine."""

    plan: Plan
    controls: tuple[Control, ...]
    environment: Environment
    identical: tuple[Trial, ...]
    slower: tuple[Trial, ...]
    recipes: tuple[OwnRecipe, ...] = ()

    @property
    def false_failures(self) -> int:
        return self.outcomes(self.identical).count("fail")

    @property
    def misses(self) -> int:
        """Slowed copies that did not fail."""
        return len(self.slower) - self.outcomes(self.slower).count("fail")

    def outcomes(self, trials: Sequence[Trial]) -> list[Decision]:
        """What the plan's limit comes to in each of `trials`."""
        return [each.outcome(1 / (1 + self.plan.limit)) for each in trials]

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
        passed = self.outcomes(self.identical).count("pass")
        return (
            self.false_failures == 0
            and passed >= ENOUGH * len(self.identical)
            and self.misses <= (1 - ENOUGH) * len(self.slower)
        )

    @property
    def segment_spread(self) -> float:
        """Standard deviation of an estimate of one second, as a share: the median of all identical copies."""
        return median(each.estimate.scale for each in self.identical)

    @property
    def comparison_spread(self) -> float | None:
        """Standard deviation of the estimates of identical copies; None where there is one only."""
        estimates = [each.estimate.figure for each in self.identical]
        return stdev(estimates) if len(estimates) > 1 else None

    @property
    def smallest_limit(self) -> float | None:
        """The smallest of LADDER that no identical copy breaks and nearly all keep; None where there is none."""
        for slower in LADDER:
            outcomes = [each.outcome(1 / (1 + slower)) for each in self.identical]
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
    """Identical and slowed copies in turns, then the model's own recipes in turns.

    `on_trial(what, number)` is called before each comparison.
    """

    def compare(variant: Variant, number: int, *, slowdown: float = 0.0) -> Trial:
        is_copy = variant.recipe is None
        return trial(
            variant,
            slowdown=slowdown,
            min_speedup=1 / (1 + plan.limit) if is_copy else None,
            time_limit_s=plan.time_limit_s if is_copy else min(plan.time_limit_s, RECIPE_SECONDS),
            folder=folder,
            seed=SEED + number,
            launches_at_least=LAUNCHES if is_copy else 1,
            listener=listener,
        )

    identical: list[Trial] = []
    slower: list[Trial] = []
    for number in range(1, plan.repeats + 1):
        for kind, slowdown, trials in (("identical copy", 0.0, identical), ("slower copy", plan.slowdown, slower)):
            on_trial(kind, number)
            trials.append(compare(plan.variant, number, slowdown=slowdown))
    own: dict[Variant, list[Trial]] = {variant: [] for variant in plan.recipes}
    for number in range(1, RECIPE_REPEATS + 1):
        for variant, trials in own.items():
            on_trial(variant.label, number)
            trials.append(compare(variant, number))
    recipes = tuple(OwnRecipe(variant.label, tuple(trials)) for variant, trials in own.items())
    return Result(plan, controls, _environment(plan.variant, folder), tuple(identical), tuple(slower), recipes)


def _environment(variant: Variant, folder: Path) -> Environment:
    worker = Worker(replace(variant, recipe=None), folder, "environment")
    try:
        environment: Environment = worker.request("environment", limit_s=60.0)
    finally:
        worker.close()
    return environment
