"""The funnel: every candidate in turn, the cheapest evidence first, until the time is over.

What the recipe changed and the size are known before memory, memory before answers, answers before times. A candidate
that breaks a limit, or whose first answers are certainly too bad, is not measured further, and one that another has
beaten already is not timed: so there is an answer early, and times are spent on what may win.

All recipes come first, in a fixed order, then further settings of the knobs of those that nothing dominates. These are
proposed by the figures that repeat (memory, size, drop), so a second search of the same seed takes the same way. What
is near its limits is trained last, where the project gives a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from pytest_modelopt.exploring.choice import (
    Aim,
    Trial,
    broken,
    dominator,
    holds,
    is_undecided,
    nearest_miss,
    open_limits,
    ranked,
)
from pytest_modelopt.exploring.early_out import why_out
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.front import EXACT, covers
from pytest_modelopt.measuring.controller.side_by_side import GoesOn
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.case import Case, MeasuredCase, Stage
from pytest_modelopt.results.verdicts import Limit

PATIENCE = 12
"""So many settings in a row that add nothing end the tuning."""
MOST_TUNED = 100
"""So many settings end it, whatever they add."""
FINALISTS = 3
"""So many candidates at the most are measured anew: they share the error of each timed limit."""
NOT_REACHED = "explore ended before"
End = Literal["done", "time", "interrupt"]
Part = Literal["measuring", "tuning", "training", "timing"]
"""Of a search, each with an end of its own."""


class TimeIsUp(BaseException):
    """Raised in the middle of a step, as Ctrl-C is: nothing on the way may take it for a fault of the model."""


class Gauge(Protocol):
    """A source of measurements: the gate's own runner and judge, or records made by hand."""

    def measure(self, recipe: Expression, goes_on: GoesOn) -> Case:
        """The case, judged; with times where `goes_on` allows that."""

    def time(self, recipe: Expression, case: Case) -> Case:
        """The same with its times, judged again."""

    def judge(self, case: MeasuredCase) -> Case:
        """The verdicts on what is known of a case."""


class Tuner(Protocol):
    """Proposes further settings of recipes, by what became of those before."""

    def ask(self) -> Expression:
        """The next one to try, perhaps one that was tried before."""

    def tell(self, trial: Trial) -> None:
        """What became of the one that was asked for last."""


class Memory(Protocol):
    """Measurements of earlier explorations: of the same model, data, versions and machine."""

    def get(self, recipe: Expression) -> Case | None: ...

    def put(self, recipe: Expression, case: Case) -> None: ...


class Forgetful:
    """A memory of nothing."""

    def get(self, recipe: Expression) -> Case | None:
        return None

    def put(self, recipe: Expression, case: Case) -> None:
        pass


def needs_times(aim: Aim, limits: Sequence[Limit]) -> bool:
    """Whether times matter: to the aim, to a limit, or to the front where there is no limit."""
    return aim == "speedup" or not limits or any(LIMITS[each.name].is_timed for each in limits)


class Elsewhere(Protocol):
    """Other machines of this one's kind, which measure candidates meanwhile, all but their times."""

    @property
    def is_open(self) -> bool:
        """Whether they may be at work: then nothing is timed here, where they may be processes of this machine."""

    def measured(self, recipe: Expression) -> Trial | None:
        """What one has found, once it has; None where none has, or will. Raises TimeIsUp."""

    def found(self, recipe: Expression) -> Trial | None:
        """What one has found so far."""


class Nowhere:
    """No other machines."""

    is_open = False

    def measured(self, recipe: Expression) -> Trial | None:
        return None

    def found(self, recipe: Expression) -> Trial | None:
        return None


@dataclass
class Search:
    """One search for the best candidate. After `run`, `trials` has every recipe, and `end` says how it ended."""

    recipes: Sequence[Expression]
    limits: Sequence[Limit]
    aim: Aim
    gauge: Gauge
    memory: Memory
    tell: Callable[[str], None] = lambda text: None
    """Shown while it runs: what is known so far."""
    begin: Callable[[Part], None] = lambda stage: None
    """Called as a stage begins, each of which has an end of its own: who measures slowly still gets some times."""
    tuner: Callable[[Sequence[Trial]], Tuner | None] = lambda trials: None
    """Called once all recipes were tried; None where there is nothing to tune."""
    mix: Callable[[Search], None] = lambda search: None
    """Called once all recipes were measured: it tries some with layers that stay (`mixing.py`)."""
    train: Callable[[Search], None] = lambda search: None
    """Called behind all that, before times: it tries some that the project's own function trains (`training.py`)."""
    elsewhere: Elsewhere = field(default_factory=Nowhere)
    leaves_times: bool = False
    """Whether times are taken elsewhere."""
    trials: list[Trial] = field(default_factory=list)
    end: End = "done"

    def __post_init__(self) -> None:
        self.trials = [Trial(recipe, order, why=NOT_REACHED) for order, recipe in enumerate(self.recipes)]

    def run(self) -> None:
        """Until all is tried, or `TimeIsUp` or Ctrl-C is raised in a step. What was measured by then stands."""
        try:
            self._until_its_end("measuring", self._measure_all)
            self._take_what_others_found()
            if self.end == "done":
                self._until_its_end("measuring", lambda: self.mix(self))
            self._until_its_end("tuning", self._tune)
            self._until_its_end("training", lambda: self.train(self))
            self._until_its_end("timing", self._time_those_that_may_win)
            if self.end == "done" and not self.holding:
                self._until_its_end("timing", self._complete_the_nearest)
        except KeyboardInterrupt:
            self.end = "interrupt"
            self._take_what_others_found()

    def _until_its_end(self, stage: Part, work: Callable[[], None]) -> None:
        self.begin(stage)
        try:
            work()
        except TimeIsUp:
            self.end = "time"

    # --- what is known -----------------------------------------------------------------------------------------------

    @property
    def holding(self) -> list[Trial]:
        """Those that keep all limits, the best by the aim first."""
        return ranked([trial for trial in self.trials if trial.is_whole and holds(trial.case)], self.aim)

    @property
    def undecided(self) -> list[Trial]:
        """Those of which it is not known whether they keep all limits."""
        return [trial for trial in self.trials if trial.is_whole and is_undecided(trial.case)]

    @property
    def is_timed(self) -> bool:
        """Whether candidates are timed here."""
        return not self.leaves_times and needs_times(self.aim, self.limits)

    @property
    def front(self) -> list[Trial]:
        """Those that nothing dominates among those that keep all limits; without such a one, among all."""
        whole = self.holding or [trial for trial in self.trials if trial.is_whole]
        return [trial for trial in whole if dominator(trial, whole) is None]

    # --- the stages --------------------------------------------------------------------------------------------------

    def _measure_all(self) -> None:
        for number, trial in enumerate(self.trials):
            self.tell(f"{number + 1} of {len(self.trials)}: {trial.recipe}; {self._known()}")
            self.trials[number] = self.measured(trial)

    def _take_what_others_found(self) -> None:
        """Also of recipes whose turn has not come."""
        for number, trial in enumerate(self.trials):
            if trial.case is None:
                self.trials[number] = self._from(self.elsewhere.found(trial.recipe), trial) or trial

    def _from(self, found: Trial | None, trial: Trial) -> Trial | None:
        """What another machine has found. An error there may be none here: it has other tools and less memory."""
        if found is None or found.case is None or found.case.error is not None:
            return None
        case = self.gauge.judge(found.case)
        return replace(found, order=trial.order, is_tuned=trial.is_tuned, case=case)

    def try_also(self, recipe: Expression) -> None:
        """Measure another recipe as all are, unless it was tried."""
        if any(trial.recipe == recipe for trial in self.trials):
            return
        trial = Trial(recipe, len(self.trials), why=NOT_REACHED)
        self.trials.append(trial)
        self.tell(f"{recipe}; {self._known()}")
        self.trials[trial.order] = self.measured(trial)

    def _tune(self) -> None:
        """Further settings, until a number of them in a row adds nothing, or there were many."""
        tuner = self.tuner(self.trials)
        idle = tuned = 0
        while tuner is not None and idle < PATIENCE and tuned < MOST_TUNED:
            recipe = tuner.ask()
            trial = next((each for each in self.trials if each.recipe == recipe), None)
            if trial is None:
                trial = Trial(recipe, len(self.trials), why=NOT_REACHED, is_tuned=True)
                self.trials.append(trial)
            idle += 1
            if trial.case is None:
                tuned += 1
                self.tell(f"setting {tuned}: {recipe}; {self._known()}")
                trial = self.trials[trial.order] = self.measured(trial)
                idle = 0 if self._adds(trial) else idle
            tuner.tell(trial)

    def _adds(self, trial: Trial) -> bool:
        """Whether it breaks no limit, and no other setting of the same recipes is as good in all that repeats."""
        if trial.case is None or not trial.is_whole or broken(trial.case):
            return False
        names = _names(trial)
        alike = (each for each in self.trials if each is not trial and each.is_whole and _names(each) == names)
        return not any(each.case is not None and covers(each.case, trial.case, EXACT) for each in alike)

    def measured(self, trial: Trial, *, even_if_broken: bool = False) -> Trial:
        """All of it, or what shows that it cannot win; as it is remembered or was measured elsewhere, where that is
        enough."""
        why, drop_seen = "", None

        def goes_on(case: MeasuredCase, stage: Stage | Literal["look"]) -> bool:
            nonlocal why, drop_seen
            if stage == "look":
                drop_seen = _drop_of(case)
                why = "" if even_if_broken else why_out(case, self.limits)
                return not why
            judged = self.gauge.judge(case)
            if stage == "timing":
                return self._may_win(replace(trial, case=judged, why=""))
            return even_if_broken or not broken(judged)

        known = self.memory.get(trial.recipe)
        if known is not None:
            case = self.gauge.judge(known)
            if _is_whole(case) or (broken(case) and not even_if_broken):
                return replace(trial, case=case, why=_why_not_whole(case), is_cached=True)
        if not even_if_broken and (taken := self._from(self.elsewhere.measured(trial.recipe), trial)) is not None:
            return taken
        case = self.gauge.measure(trial.recipe, goes_on)
        if case.error is None and not why:
            self.memory.put(trial.recipe, case)
        return replace(
            trial,
            case=case,
            why=why or _why_not_whole(case),
            is_cached=False,
            is_out_early=bool(why),
            drop_seen=drop_seen if why else None,
        )

    def _may_win(self, trial: Trial) -> bool:
        """Whether the times of a candidate of which all else is known may make it the best of those so far."""
        others = [other for other in self.trials if other.is_whole and other.order != trial.order]
        if not self.is_timed or self.elsewhere.is_open or broken(trial.case):
            return False
        if self.aim == "speedup" or not self.limits:
            return dominator(trial, others) is None
        return next(iter(ranked([*self.holding, trial], self.aim)), None) is trial

    def _time_those_that_may_win(self) -> None:
        """The rest of the times: by the aim's own figure, the best first, until there are enough finalists. Where times
        themselves are the aim, or no limit is stated, of all, what nothing dominates first."""
        if not self.is_timed:
            return
        whole = [trial for trial in self.trials if trial.is_whole and not broken(trial.case)]
        if self.aim == "speedup" or not self.limits:
            waiting = sorted(whole, key=lambda trial: (dominator(trial, whole) is not None, trial.order))
        else:
            waiting = ranked(whole, self.aim)
        for trial in waiting:
            if self.aim != "speedup" and self.limits and len(self.holding) >= FINALISTS:
                return
            self._time(trial)

    def _time(self, trial: Trial) -> None:
        case = trial.case
        assert case is not None
        if case.timing is not None:
            return
        self.tell(f"timing {trial.recipe}; {self._known()}")
        timed = self.gauge.time(trial.recipe, case)
        if timed.error is None:
            self.memory.put(trial.recipe, timed)
        why = timed.error.message if timed.error is not None else ""
        self.trials[trial.order] = replace(trial, case=timed, why=why)

    def _complete_the_nearest(self) -> None:
        """Nothing keeps all limits: the rest of what was left out of those that come nearest, for the answer."""
        stopped = [trial for trial in self.trials if trial.case is not None and broken(trial.case) and trial.why]
        if not stopped:  # then of those whose first answers were too bad, all answers say how bad
            early = [trial for trial in self.trials if trial.is_out_early][:FINALISTS]
            for trial in early:
                self.tell(f"no candidate keeps all limits; the rest of {trial.recipe}")
                self.trials[trial.order] = self.measured(trial, even_if_broken=True)
        whole = [replace(trial, why="") for trial in stopped]
        for _ in range(FINALISTS):
            miss = nearest_miss(whole, 1)
            if miss is None:
                return
            whole.remove(miss.trial)
            self.tell(f"no candidate keeps all limits; the rest of {miss.trial.recipe}")
            trial = self.trials[miss.trial.order] = self.measured(miss.trial, even_if_broken=True)
            if self.is_timed and trial.is_whole and trial.case is not None and open_limits(trial.case):
                self._time(trial)

    def _known(self) -> str:
        held = self.holding
        if held:
            return f"best so far {held[0].recipe}"
        return "none keeps all limits so far" if self.limits else "no limits: the whole front"


def _drop_of(case: MeasuredCase) -> float | None:
    """The drop on the examples of a look, a share of them."""
    seen = case.agreement
    return (seen.right_to_wrong - seen.wrong_to_right) / seen.examples if seen is not None and seen.examples else None


def _names(trial: Trial) -> list[str]:
    return [step.recipe_name for step in trial.recipe.steps]


def _is_whole(case: Case) -> bool:
    """Whether all but the times is known, or told why it is not."""
    side = case.variant
    return side is not None and side.observations is not None


def _why_not_whole(case: Case) -> str:
    if case.error is not None:
        return case.error.message
    if _is_whole(case):
        return ""
    names = ", ".join(f"{each.limit.name} {each.limit.text}" for each in broken(case))
    return f"it breaks {names}"
