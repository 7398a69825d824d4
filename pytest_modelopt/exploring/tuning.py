"""Settings of knobs by Optuna: several objectives, the limits as constraints, each proposal by what came before.

Objectives are the figures that repeat: memory, size and drop. Times are measured of few candidates, and never the same
twice; within one family they follow from the size.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from pytest_modelopt.exploring.choice import Trial, broken, dominator, shortfall
from pytest_modelopt.exploring.knobs import Family, families
from pytest_modelopt.limits.front import EXACT, figure
from pytest_modelopt.optimizing.expression import Expression

MISSING = 'the knobs of recipes are tuned by Optuna, which is missing: run `pip install "pytest-modelopt[explore]"`'
_UNKNOWN = 10.0
"""In place of a figure that was not measured, and the largest shortfall: far from what keeps its limits."""
_DIGITS = 4
"""Of a figure that is told: memory of other processes wavers beyond them."""


def is_installed() -> bool:
    return importlib.util.find_spec("optuna") is not None


class OptunaTuner:
    """Asks Optuna for settings of the families. Two of the same seed that are told the same propose the same."""

    def __init__(self, found: Sequence[Family], known: Sequence[Trial], seed: int) -> None:
        """`known`: those that were tried before, of which it learns. Raises ImportError without Optuna."""
        self._families = {family.text: family for family in found}
        self._asked: Any = None
        of_all = (limit for trial in known if trial.case is not None for limit in trial.case.limits)
        self._limits = tuple(dict.fromkeys(limit.name for limit in of_all if limit.level == "error"))
        with _quiet() as optuna:
            sampler = optuna.samplers.TPESampler(seed=seed)
            self.study = optuna.create_study(directions=["minimize"] * len(EXACT), sampler=sampler)
        for family in found:
            for trial in known:
                if (indices := family.indices(trial.recipe)) is not None:
                    self._propose(family, indices)
                    self.ask()
                    self.tell(trial)
        for family in found:
            for share in (0.25, 0.75):
                self._propose(family, [int(share * size) for size in _sizes(family)])

    def ask(self) -> Expression:
        with _quiet():
            self._asked = self.study.ask()
            name = self._asked.suggest_categorical("family", list(self._families))
            family = self._families[name]
            names = self._names(family)
            indices = [
                self._asked.suggest_int(each, 0, size - 1) for each, size in zip(names, _sizes(family), strict=True)
            ]
        return family.recipe(indices)

    def tell(self, trial: Trial) -> None:
        with _quiet():
            for name, value in self._violations(trial).items():
                self._asked.set_constraint(name, value)
            self.study.tell(self._asked, _values(trial))

    def _violations(self, trial: Trial) -> dict[str, float]:
        """The shortfall of each limit, 0 where it is kept or open; the largest for errors and bad first answers."""
        verdicts = trial.case.verdicts if trial.case is not None else ()
        misses = {each.limit.name: min(_UNKNOWN, shortfall(each)) for each in verdicts if each.outcome == "fail"}
        failed = trial.case is None or trial.case.error is not None or trial.is_out_early
        return {**{name: misses.get(name, 0.0) for name in self._limits}, "measured": _UNKNOWN if failed else 0.0}

    def _propose(self, family: Family, indices: Sequence[int]) -> None:
        """Let it be asked for next, behind what was proposed before."""
        with _quiet():
            self.study.enqueue_trial({"family": family.text, **dict(zip(self._names(family), indices, strict=True))})

    @staticmethod
    def _names(family: Family) -> list[str]:
        return [f"{knob.text} of {family.text}" for knob in family.knobs]


def tuner_of(trials: Sequence[Trial], linear_bytes: int, seed: int) -> OptunaTuner | None:
    """For the knobs of what nothing dominates, and of what only breaks a limit, which another setting may keep; None
    where there are none. Each family once: what differs from an earlier one by its setting only is of that.

    `linear_bytes`: of the weights of all Linear of the original.
    """
    whole = [trial for trial in trials if trial.is_whole and not broken(trial.case)]
    found: list[Family] = []
    for trial in trials:
        misses = trial.case is not None and trial.case.error is None and bool(broken(trial.case) or trial.is_out_early)
        if not misses and (trial not in whole or dominator(trial, whole) is not None):
            continue
        if any(family.indices(trial.recipe) is not None for family in found):
            continue
        found += families(trial.recipe, linear_bytes)
    return OptunaTuner(found, trials, seed) if found else None


def _values(trial: Trial) -> list[float]:
    """The objectives: shares of the original's memory and size, and the drop. What is never measured is 0."""
    found = [figure(trial.case, each) for each in EXACT]
    unknown = 0.0 if trial.is_whole else _UNKNOWN
    return [unknown if each is None else round(each.middle, _DIGITS) for each in found]


def _sizes(family: Family) -> list[int]:
    return [len(knob.settings) for knob in family.knobs]


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna without its log on standard error and its warnings of experimental parts."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)
