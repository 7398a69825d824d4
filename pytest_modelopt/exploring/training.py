"""Fine-tuning by the project's own function: last of all, of what would win and is near its limits on answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_modelopt.exploring.choice import Aim, Trial, ranked, shortfall
from pytest_modelopt.exploring.funnel import Search
from pytest_modelopt.exploring.mixing import is_of_answers
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.front import figure
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.verdicts import Verdict

MOST_RECIPES = 2
"""So many recipes at the most are trained: each takes as long as the project's function does."""
NEAR = 0.1
"""A share of the examples, or of a score from 0 to 1: what is further from its limit is not trained."""
NEAR_OF_LIMIT = 1.0
"""Of limits on other figures: a share of the limit."""


@dataclass(frozen=True)
class Training:
    """A stage of the search: it tries recipes again, which then have a function of the project train the model."""

    function: str
    """package.module:function"""

    def __call__(self, search: Search) -> None:
        best = next(iter(search.holding), None)
        tried = 0
        for trial in worth_training(search.trials, search.aim, best):
            recipe = trial.recipe.trained_by(self.function)
            if recipe is not None and tried < MOST_RECIPES:
                search.try_also(recipe)
                tried += 1


def worth_training(trials: Sequence[Trial], aim: Aim, best: Trial | None) -> list[Trial]:
    """What does not keep its limits on answers for certain and is near them, keeps all others that are known, and is
    better by the aim than the best that holds; the best first."""
    criterion = "size" if aim == "speedup" else aim
    to_beat = figure(best.case, criterion) if best is not None else None

    def is_better(trial: Trial) -> bool:
        own = figure(trial.case, criterion)
        return to_beat is None or aim == "speedup" or (own is not None and own.high < to_beat.low)

    return ranked([trial for trial in trials if _is_near(trial) and is_better(trial)], criterion)


def _is_near(trial: Trial) -> bool:
    if trial.case is None or trial.case.error is not None:
        return False
    missed = [each for each in trial.case.verdicts if each.limit.level == "error" and _may_be_missed(each)]
    if trial.is_out_early:
        return not missed and trial.drop_seen is not None and trial.drop_seen <= NEAR
    in_shares = in_unit_interval(trial.case.metric)
    return bool(missed) and all(is_of_answers(each) and _misses_little(each, in_shares) for each in missed)


def _may_be_missed(verdict: Verdict) -> bool:
    return verdict.outcome in ("fail", "inconclusive") and not LIMITS[verdict.limit.name].is_timed


def _misses_little(verdict: Verdict, in_shares: bool | None) -> bool:
    if verdict.measured is None:
        return False
    if in_shares or LIMITS[verdict.limit.name].unit == "percentage":
        return abs(verdict.measured - verdict.limit.value) <= NEAR
    return shortfall(verdict) <= NEAR_OF_LIMIT
