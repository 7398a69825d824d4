"""The choice among measured candidates: what holds, what dominates what, what is best by the aim. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pytest_modelopt.judging.headroom import tightest
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.front import CRITERIA, dominates, figure
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit, Verdict

Aim = Literal["memory", "speedup", "size"]
AIMS: tuple[Aim, ...] = get_args(Aim)

_LEAST = 0.01
"""A limit below this (a drop of 0, say) has no share: then the figure misses it by shares of this."""


@dataclass(frozen=True)
class Trial:
    """One recipe, as far as it was measured on the part of the data that chooses."""

    recipe: Expression
    order: int
    """Its place among those that are tried."""
    case: Case | None = None
    why: str = ""
    """Why it was not tried, was not measured further, or is in error."""
    is_cached: bool = False
    is_tuned: bool = False
    """Whether Optuna proposed this setting. It does so after all recipes of the fixed list were tried."""
    is_out_early: bool = False
    """Whether some of its answers were enough to leave it out."""
    drop_seen: float | None = None
    """Of one that was left out so: the drop on these answers, a share of them."""

    @property
    def is_whole(self) -> bool:
        """Whether all but the times is known."""
        return self.case is not None and self.case.error is None and not self.why

    @property
    def simplicity(self) -> tuple[int, int]:
        """Fewer steps are simpler, then the place in the order."""
        return len(self.recipe.steps), self.order


# --- dominance -------------------------------------------------------------------------------------------------------


def dominator(trial: Trial, trials: Iterable[Trial]) -> Trial | None:
    """The first that dominates it, of those that are whole; None where nothing does."""
    if not trial.is_whole:
        return None
    others = (other for other in trials if other.is_whole and other is not trial)
    return next((other for other in others if _dominates(other, trial)), None)


def _dominates(one: Trial, other: Trial) -> bool:
    assert one.case is not None
    assert other.case is not None
    return dominates(one.case, other.case)


# --- limits ----------------------------------------------------------------------------------------------------------


def broken(case: Case | None) -> tuple[Verdict, ...]:
    """The verdicts by which a candidate is out: limits of level `error` that its figures break."""
    verdicts = case.verdicts if case is not None else ()
    return tuple(each for each in verdicts if each.limit.level == "error" and each.outcome == "fail")


def holds(case: Case | None) -> bool:
    """Whether all limits of level `error` are kept."""
    if case is None or case.error is not None:
        return False
    return all(each.outcome == "pass" for each in case.verdicts if each.limit.level == "error")


def is_confirmed(case: Case, finalists: int) -> bool:
    """Whether a case that was measured anew keeps all limits, at the share of the error that one of the finalists
    has."""
    errors = [each.limit for each in case.verdicts if each.limit.level == "error"]
    return holds(case) and all(LIMITS[limit.name].passes_among(case, limit, finalists) for limit in errors)


def open_limits(case: Case | None) -> tuple[Limit, ...]:
    """Limits of level `error` that are neither kept nor broken: statistics could not decide, or there are no times."""
    return tuple(
        each.limit
        for each in (case.verdicts if case is not None else ())
        if each.limit.level == "error"
        and (each.outcome == "inconclusive" or (each.outcome == "not measured" and LIMITS[each.limit.name].is_timed))
    )


def is_undecided(case: Case | None) -> bool:
    """Whether limits of level `error` are open, and all others kept."""
    if case is None or case.error is not None or broken(case):
        return False
    left = [each.limit for each in case.verdicts if each.limit.level == "error" and each.outcome != "pass"]
    return bool(left) and len(left) == len(open_limits(case))


# --- the best --------------------------------------------------------------------------------------------------------


def ranked(trials: Iterable[Trial], aim: Aim) -> list[Trial]:
    """Those of which the aim's figure is known, the best first; among those that tie with the best the simplest."""
    known = [(trial, found) for trial in trials if (found := figure(trial.case, aim)) is not None]
    known.sort(key=lambda pair: (pair[1].middle, pair[0].simplicity))
    if not known:
        return []
    best = known[0][1]
    tied = sorted((trial for trial, found in known if found.overlaps(best)), key=lambda trial: trial.simplicity)
    return [*tied, *(trial for trial, found in known if not found.overlaps(best))]


def knees(front: Sequence[Trial]) -> list[Trial]:
    """The front by how little each gives up in all at once, the least first, and of equals the simplest.

    Each figure counts by its place between the best and the worst of the front; one that is not known counts as worst.
    """
    given_up = dict.fromkeys(map(id, front), 0.0)
    for criterion in CRITERIA:
        found = {id(trial): figure(trial.case, criterion) for trial in front}
        known = [each.middle for each in found.values() if each is not None]
        if not known or min(known) == max(known):
            continue
        for key, each in found.items():
            given_up[key] += 1.0 if each is None else (each.middle - min(known)) / (max(known) - min(known))
    return sorted(front, key=lambda trial: (round(given_up[id(trial)], 9), trial.simplicity))


def tied_with_best(trials: Sequence[Trial], aim: Aim) -> list[Trial]:
    """Those of the ranked `trials` whose figure overlaps that of the best; the first of them included."""
    figures = {id(trial): figure(trial.case, aim) for trial in trials}
    found = [each for each in figures.values() if each is not None]
    best = min(found, key=lambda each: each.middle, default=None)
    return [trial for trial in trials if best is not None and (own := figures[id(trial)]) and own.overlaps(best)]


@dataclass(frozen=True)
class Miss:
    """The candidate that comes nearest to all limits, where none keeps them."""

    trial: Trial
    binding: Verdict
    """The limit that it misses by most."""
    needed: float | None
    """The value of that limit, in its base unit, that the candidate would keep; None where nobody can tell."""


def nearest_miss(trials: Iterable[Trial], timed_limits: int) -> Miss | None:
    """The one with the smallest shortfall, of those that are whole; None where there is none that misses a limit."""
    missing = [(trial, worst) for trial in trials if trial.is_whole and (worst := _worst(trial.case)) is not None]
    if not missing:
        return None
    trial, worst = min(missing, key=_distance)
    assert trial.case is not None
    return Miss(trial, worst, tightest(trial.case, worst.limit, worst.measured, timed_limits))


def _distance(missing: tuple[Trial, Verdict]) -> tuple[bool, float, tuple[int, int]]:
    """How far a candidate is from all limits: one that misses a single limit is nearer than any that misses more."""
    trial, worst = missing
    return len(broken(trial.case)) > 1, shortfall(worst), trial.simplicity


def shortfall(verdict: Verdict) -> float:
    """By how much the figure misses its limit, as a share of the limit; infinite where it was not measured.

    Of shares of the original's bytes, of weights and of a score from 0 to 1 it is the difference.
    """
    if verdict.measured is None:
        return float("inf")
    missed = abs(verdict.measured - verdict.limit.value)
    if LIMITS[verdict.limit.name].unit in ("percentage", "score"):
        return missed
    return missed / max(abs(verdict.limit.value), _LEAST)


def _worst(case: Case | None) -> Verdict | None:
    verdicts = [each for each in case.verdicts if each.limit.level == "error"] if case is not None else []
    missed = [each for each in verdicts if each.outcome == "fail"]
    return max(missed, key=shortfall, default=None)
