"""The last step: the finalists anew, on the other part of the examples and in fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_modelopt.exploring.choice import Trial, is_confirmed, knees, ranked
from pytest_modelopt.exploring.funnel import FINALISTS, End, Search, TimeIsUp
from pytest_modelopt.results.case import Case


@dataclass(frozen=True)
class Confirmed:
    """A finalist as it was measured anew. Only these figures are reported as what it does."""

    trial: Trial
    case: Case
    holds: bool
    """Whether it keeps all limits there, at its share of the error."""


def finalists(search: Search) -> list[Trial]:
    """The candidates that are measured anew, the preferred one first: those that keep all limits by the aim, then those
    of which it is not known; without limits the knees of the front."""
    if not search.limits:
        return knees(search.front)[:FINALISTS]
    return _unlike([*search.holding, *ranked(search.undecided, search.aim)])


def _unlike(preferred: Sequence[Trial]) -> list[Trial]:
    """The first ones, of the settings that were tuned only one of the same recipes, and not all of them tuned: what is
    near the edge of its limits by one setting is so by its neighbours, too."""
    chosen: list[Trial] = []
    for trial in preferred:
        names = {step.recipe_name for step in trial.recipe.steps}
        if trial.is_tuned and any(names == {step.recipe_name for step in each.recipe.steps} for each in chosen):
            continue
        chosen.append(trial)
    plain = [trial for trial in chosen[FINALISTS - 1 :] if not trial.is_tuned]
    return [*chosen[: FINALISTS - 1], *(plain or chosen[FINALISTS - 1 :])[:1]]


def confirm(
    chosen: Sequence[Trial],
    measure: Callable[[Trial, int], Case],
    *,
    all_of_them: bool,
) -> tuple[list[Confirmed], End]:
    """The finalists that were measured anew, and what ended that.

    `measure(trial, left)` measures one of `left` that are still to come. Unless `all_of_them` are wanted, the first
    that keeps all limits is the last.
    """
    done: list[Confirmed] = []
    try:
        for number, trial in enumerate(chosen):
            case = measure(trial, len(chosen) - number)
            done.append(Confirmed(trial, case, is_confirmed(case, len(chosen))))
            if done[-1].holds and not all_of_them:
                break
    except TimeIsUp:
        return done, "time"
    except KeyboardInterrupt:
        return done, "interrupt"
    return done, "done"


def winner(confirmed: Sequence[Confirmed]) -> Confirmed | None:
    """The preferred one of those that hold; None where none does."""
    return next((each for each in confirmed if each.holds), None)
