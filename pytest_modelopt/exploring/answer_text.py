"""The answer of an exploration in words: what was chosen and why, what did not pay, what may differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_modelopt.editing.first_budgets import format_untried
from pytest_modelopt.editing.value_format import reworded
from pytest_modelopt.exploring.answer_table import limit_names, table_lines
from pytest_modelopt.exploring.choice import (
    Aim,
    Miss,
    Trial,
    broken,
    dominator,
    knees,
    nearest_miss,
    open_limits,
    tied_with_best,
)
from pytest_modelopt.exploring.confirming import Confirmed, winner
from pytest_modelopt.exploring.funnel import FINALISTS, End, Search
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.front import figure
from pytest_modelopt.reporting.cells import drop_cell
from pytest_modelopt.reporting.names import shortened
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_factor, format_percentage
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.record import Environment

_AIMS: dict[Aim, str] = {"memory": "takes the least memory", "size": "is the smallest", "speedup": "is the fastest"}
_NAMED = 8
"""Recipes that a sentence names."""
_LONGEST = 160
"""Characters of why a recipe could not be made or measured."""


@dataclass(frozen=True)
class Answer:
    """All that an exploration found."""

    search: Search
    finalists: int
    confirmed: tuple[Confirmed, ...]
    end: End
    """The reason why the measuring of the finalists ended."""
    is_split: bool
    """Whether the finalists were measured on other examples than those by which they were chosen."""
    examples: tuple[int, int]
    """Of the part that chose, and of the one that confirmed; 0 where nothing was measured there."""

    @property
    def winner(self) -> Confirmed | None:
        return winner(self.confirmed) if self.search.limits else None

    @property
    def miss(self) -> Miss | None:
        """The nearest miss, if nothing keeps all limits on the part that chose."""
        if not self.search.limits or self.search.holding or self.search.undecided:
            return None
        return nearest_miss(self.search.trials, 1)


def lines(answer: Answer, environment: Environment | None) -> Iterator[str]:
    yield from table_lines(answer.search.trials, answer.confirmed)
    yield from _chosen(answer)
    yield _what_did_not_pay(answer)
    yield _elsewhere(answer, environment)
    yield from _untried(answer)


# --- sentences -------------------------------------------------------------------------------------------------------


def _chosen(answer: Answer) -> Iterator[str]:
    """Why what was chosen won; or what came nearest, and what moving its limit would buy."""
    if not answer.search.limits:
        yield _front(answer)
    elif (won := answer.winner) is not None:
        yield _why_it_won(answer, won)
        if function := won.trial.recipe.training:
            yield (
                f"It was trained further by {function}, so its answers are not comparable with those of an original "
                "that was not; explore tries that last, and only what is near its limits."
            )
    elif not answer.confirmed and (may := answer.search.holding or answer.search.undecided):
        yield _unconfirmed(answer, may[0])
    elif not answer.confirmed and answer.miss is not None:
        yield _nearest(answer, answer.miss)
    elif answer.confirmed:
        yield (
            f"{_named([each.trial for each in answer.confirmed])}: chosen, and not confirmed. Measured anew, none of "
            "them keeps all limits for certain: what was seen before may have been luck. Widen a limit, give "
            "more examples or "
            "more --time."
        )
    else:
        yield "No candidate could be measured whole, so nothing is chosen."
    yield from _told_of_parts(answer)


def _front(answer: Answer) -> str:
    """All of it, and its knees, where no limit was stated."""
    front = answer.search.front
    told = (
        f"No limit was stated, so nothing is chosen: {_named(front)} are the whole front, of which none is certainly "
        "worse than another in all"
    )
    if len(front) > FINALISTS:
        told += f"; {_named(knees(front)[:FINALISTS])} are its knees, which give up least in all at once"
    return f"{told}; state limits, such as --max-accuracy-drop 1pp, and one of them is chosen."


def _unconfirmed(answer: Answer, best: Trial) -> str:
    """The best so far, where the end came before it was measured anew."""
    left = open_limits(best.case)
    kept = f"all limits but {limit_names(left)}" if left else "all limits"
    undecided = f", which {'was' if len(left) == 1 else 'were'} not decided" if left else ""
    aim = "" if left else f" and {_AIMS[answer.search.aim]}"
    return (
        f"`{best.recipe}` keeps {kept}{undecided}{aim}, on the part of the examples that chose it. It was not measured "
        "anew before the end, so these figures may be luck: call explore again, which goes on."
    )


def _why_it_won(answer: Answer, won: Confirmed) -> str:
    search = answer.search
    holding = search.holding
    tied = [each for each in tied_with_best(holding, search.aim) if each is not won.trial]
    beside = ""
    if won.trial in tied_with_best(holding, search.aim) and tied:
        beside = f"; it ties with {_named(tied)} within the intervals, and is the simplest of them"
    earlier = [each.trial for each in answer.confirmed if not each.holds]
    if earlier:
        beside += f"; {_named(earlier)} were preferred, and did not keep all limits when they were measured anew"
    among = f"of the {len(holding)} that keep all limits it {_AIMS[search.aim]}"
    if len(holding) < 2:
        among = "no other one is known to keep all limits"
    return f"`{won.trial.recipe}` won: {among} ({_gains(won.case)}){beside}.{_in_vain(won.case, search.aim)}"


def _in_vain(case: Case, aim: Aim) -> str:
    """That the model as it is would do, where nothing is gained by the aim: of a time for certain."""
    found = figure(case, aim)
    if found is None or (found.low if aim == "speedup" else found.middle) < 1:
        return ""
    return (
        f" By {aim} it gains nothing over the model as it is: leave that as it is, or state what you need as a limit."
    )


def _gains(case: Case) -> str:
    """'-75% memory, 1.4x as fast, 0.3 pp lost'."""
    told = []
    derived = Derived(case)
    for grown, what in ((derived.memory_growth, "memory"), (derived.size_growth, "size")):
        if grown is not None:
            sign = "+" if grown > 0 else "-" if grown else ""
            told.append(f"{sign}{format_percentage(round(abs(grown), 5))} {what}")
    if derived.speedup is not None:
        told.append(f"{format_factor(derived.speedup)} as fast")
    if case.drop is not None:
        told.append(f"{drop_cell(case, case.drop)} drop")
    return ", ".join(told)


def _nearest(answer: Answer, miss: Miss) -> str:
    """The limit that binds, and the gain where it is moved."""
    limit, case = miss.binding.limit, miss.trial.case
    assert case is not None
    others = [each.limit for each in broken(case) if each.limit.name != limit.name]
    beside = f" (it breaks {limit_names(others)}, too)" if others else ""
    if undecided := open_limits(case):
        beside += f" ({limit_names(undecided)} is open)"
    start = f"No candidate keeps all limits. `{miss.trial.recipe}` comes nearest, and {limit.name} binds{beside}: "
    if miss.needed is None:
        return f"{start}no value of this limit is known that it would keep."
    kind = LIMITS[limit.name]
    style = kind.format(miss.needed, unit_interval=in_unit_interval(case.metric))
    needed = reworded(limit.name, style, miss.needed, up=kind.bounds_from_above(case))
    return f"{start}{needed} instead of {limit.text} gives {_gains(case)}, on the examples that chose."


def _what_did_not_pay(answer: Answer) -> str:
    reasons: dict[str, list[str]] = {}
    for trial in answer.search.trials:
        if trial.case is None or trial.is_tuned:
            continue
        out = broken(trial.case)
        if trial.is_out_early:
            reasons.setdefault(trial.why, []).append(str(trial.recipe))
        elif trial.case.error is not None:
            reasons.setdefault(shortened(trial.case.error.message, _LONGEST), []).append(str(trial.recipe))
        elif out:
            reasons.setdefault(f"{out[0].limit.name} {out[0].limit.text}", []).append(str(trial.recipe))
        elif (better := dominator(trial, answer.search.front)) is not None:
            reasons.setdefault(f"no better in anything than {better.recipe}", []).append(str(trial.recipe))
    if not reasons:
        return "Nothing that was measured was left out."
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return f"Did not pay: {told}."


def _elsewhere(answer: Answer, environment: Environment | None) -> str:
    """A sentence on the figures that may differ on another machine, by the kind of the chosen variants."""
    of = [answer.winner.trial] if answer.winner is not None else answer.search.front
    int8 = any(step.multiplies_int8 for trial in of for step in trial.recipe.steps)
    runtime = any(step.gives == "runtime" for trial in of for step in trial.recipe.steps)
    cpu = "" if environment is None else f" ({environment.cpu}, {environment.cpu_capability})"
    told = f"On another machine than this one{cpu} speed may differ"
    if int8:
        flags = [flag for flag in environment.cpu_flags if "vnni" in flag or "amx" in flag] if environment else []
        told += f", int8 most of all, which is fast here by {' and '.join(flags) if flags else 'no int8 instructions'}"
    told += "; size repeats, and so does memory" + (" but for pages of the runtime's libraries" if runtime else "")
    return f"{told}; answers may flip by rounding where kernels differ."


def _told_of_parts(answer: Answer) -> Iterator[str]:
    chose, confirmed = answer.examples
    if answer.is_split and answer.confirmed:
        yield (
            f"Chosen on {chose} examples; confirmed figures are of {confirmed} others, in fresh processes: of "
            f"{len(answer.confirmed)} of {answer.finalists} finalists, which share the error of each limit that "
            f"statistics decide{'.' if answer.end == 'done' else '; the end came before the others.'}"
        )
    elif not answer.is_split and chose:
        yield (
            f"There are {chose} examples, too few for two parts: the figures are of the same examples by which the "
            "recipe was chosen, so its drop may be luck. Give more examples, a hundred at least."
        )
    elif not chose:
        yield (
            "There is no data: whether the answers stay right is unknown. Give --data, and --metric agreement where "
            "there are no labels."
        )


def _untried(answer: Answer) -> Iterator[str]:
    left = [(str(trial.recipe), trial.why) for trial in answer.search.trials if trial.case is None]
    yield from format_untried(left)
    if answer.search.is_timed:
        whole = [each for each in answer.search.trials if each.is_whole and each.case is not None and not each.is_tuned]
        untimed = [str(each.recipe) for each in whole if each.case is not None and each.case.timing is None]
        if untimed:
            why = "explore ended before, or they cannot win" if answer.search.end != "done" else "they cannot win"
            yield f"not timed, since {why}: {', '.join(untimed)}"


def _named(trials: Sequence[Trial]) -> str:
    names = [f"`{trial.recipe}`" for trial in trials]
    if len(names) > _NAMED:
        return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"
