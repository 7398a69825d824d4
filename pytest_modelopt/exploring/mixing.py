"""Mixed recipes: where a recipe breaks only limits on answers, the layers that cost most for what they give stay.

Layers are kept greedily, by what each costs alone for each byte that it gives, until the limits on answers hold; of
these no more than it takes. What comes out is an ordinary recipe with `keep=`, which takes the way of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pytest_modelopt.exploring.cache import Cache
from pytest_modelopt.exploring.choice import Aim, Trial, broken, ranked
from pytest_modelopt.exploring.funnel import Search
from pytest_modelopt.exploring.sensitivity import Sensitivity, Trials, known_groups
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.measuring.controller.fewest_kept_layers import fewest_first, least, remembered
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.worker_context import Failed
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.results.case import Case, MeasuredCase
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup
from pytest_modelopt.results.verdicts import Verdict

MOST_RECIPES = 3
"""So many recipes at the most are mixed, those with the best figures of the aim: each takes some passes a layer."""
OF_ANSWERS = ("score", "predictions")
"""The figures that limits on answers are about."""


class Gauge(Protocol):
    def judge(self, case: MeasuredCase) -> Case: ...

    def layer_trials(self, recipe: Expression) -> AbstractContextManager[Trials]:
        """Raises WorkerFailed where the recipe cannot be tried so."""


@dataclass(frozen=True)
class Mixing:
    """A stage of the search: behind the plain recipes, it tries those of them that keep some layers."""

    gauge: Gauge
    cache: Cache
    found: list[Sensitivity] = field(default_factory=list)
    """The costs by layer that were measured before the search ended."""

    def __call__(self, search: Search) -> None:
        for trial in worth_mixing(search.trials, search.aim)[:MOST_RECIPES]:
            search.tell(f"looking for the layers that {trial.recipe} must keep")
            try:
                recipe = self._mixed(trial.recipe, search.tell)
            except (Failed, RecipeError, WorkerFailed):  # a recipe less to try, of which the plain one is in the table
                continue
            if recipe is not None:
                search.try_also(recipe)

    def _mixed(self, recipe: Expression, tell: Callable[[str], None]) -> Expression | None:
        with self.gauge.layer_trials(recipe) as trials:
            found = Sensitivity(recipe, self.cache, trials.groups, tell)
            self.found.append(found)
            found.measure(trials)
            kept = kept_layers(found.costs, lambda groups: self._holds(trials, groups))
            if not kept or trials.keep(kept).changes_nothing:
                return None
        return recipe.keeping([group.name for group in kept])

    def known(self, search: Search) -> list[Sensitivity]:
        """The known costs by layer under the recipes that were tried, measured now or by an earlier call."""
        now = {each.recipe for each in self.found}
        before = [trial.recipe for trial in search.trials if trial.recipe.can_keep and trial.recipe not in now]
        earlier = [Sensitivity(recipe, self.cache, known_groups(self.cache, recipe)) for recipe in before]
        return [each for each in (*self.found, *earlier) if each.costs]

    def _holds(self, trials: Trials, groups: Sequence[LayerGroup]) -> bool:
        tried = trials.keep(groups)
        return tried.changes_nothing or (not tried.why and not _of_answers(self.gauge.judge(tried.case)))


def worth_mixing(trials: Sequence[Trial], aim: Aim) -> list[Trial]:
    """Recipes that can keep layers, and are out for their answers alone; the best by the aim first, where it is known
    of them."""
    found = [
        trial
        for trial in trials
        if trial.case is not None
        and trial.case.error is None
        and trial.recipe.can_keep
        and (broken(trial.case) or trial.why)
        and len(_of_answers(trial.case)) == len(broken(trial.case))
    ]
    best = ranked(found, "size" if aim == "speedup" else aim)
    return [*best, *(trial for trial in found if trial not in best)]


def kept_layers(costs: Sequence[LayerCost], holds: Callable[[Sequence[LayerGroup]], bool]) -> list[LayerGroup] | None:
    """The layers that stay: by harm for each byte until the limits hold, and of these no more than it takes. None where
    they never hold before all stay."""
    alone = sorted((cost for cost in costs if not cost.why), key=_dear, reverse=True)
    others = [cost.group for cost in costs if cost.why]  # what changes only together with others comes last
    order = [*(cost.group for cost in alone), *others]
    asked = remembered(holds)
    enough = fewest_first(order[:-1], asked)
    return None if enough is None else least(enough, asked)


def _dear(cost: LayerCost) -> float:
    return cost.harm / max(1, cost.saved_bytes or 0)


def _of_answers(case: Case) -> list[str]:
    """The limits on answers that the case breaks."""
    return [each.limit.name for each in broken(case) if is_of_answers(each)]


def is_of_answers(verdict: Verdict) -> bool:
    return LIMITS[verdict.limit.name].figure in OF_ANSWERS
