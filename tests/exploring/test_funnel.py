"""The funnel: the cheapest evidence first, times only for what may win, and an answer whenever it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from pytest_modelopt.exploring.choice import Aim, Trial
from pytest_modelopt.exploring.confirming import confirm, finalists, winner
from pytest_modelopt.exploring.funnel import FINALISTS, Forgetful, Search, TimeIsUp
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.case import Case
from tests.exploring.candidates_by_hand import ByHand, candidate, failed, limits, trial

A, B, C, D = "int8-dynamic", "bf16", "int8-weight-only", "low-rank(ratio=0.5)"


def searched(gauge: ByHand, aim: Aim = "memory", memory: object = None) -> Search:
    recipes = [parse(name) for name in gauge.cases]
    search = Search(recipes, gauge.bounds, aim, gauge, memory or Forgetful())  # type: ignore[arg-type]
    search.run()
    return search


def test_what_breaks_a_limit_is_not_measured_further() -> None:
    bounds = limits(max_size="4 MiB", max_memory="4 MiB", max_accuracy_drop="1 pp")
    gauge = ByHand(
        bounds,
        candidate(A, size=5),
        candidate(B, size=3, memory=5),
        candidate(C, size=3, memory=3, lost=9),
        candidate(D, size=3, memory=3),
    )
    search = searched(gauge)
    assert gauge.asked == {
        A: ["size"],
        B: ["size", "memory"],
        C: ["size", "memory", "score"],
        D: ["size", "memory", "score"],
    }
    assert [each.why for each in search.trials] == [
        "it breaks max_size 4 MiB", "it breaks max_memory 4 MiB", "it breaks max_accuracy_drop 1 pp", ""
    ]  # fmt: skip
    assert [str(each.recipe) for each in search.holding] == [D]
    assert (gauge.timed, search.end) == ([], "done")  # nobody asked for times


def test_only_what_may_win_is_timed() -> None:
    """By memory: A holds, B is larger and cannot win, C is smaller but slow, D is smaller and fast."""
    gauge = ByHand(
        limits(min_speedup="1.3x"),
        candidate(A, memory=4, speedup=2.0),
        candidate(B, memory=5, speedup=2.0),
        candidate(C, memory=3, speedup=1.0),
        candidate(D, memory=2, speedup=2.0),
    )
    search = searched(gauge)
    assert gauge.timed[:3] == [A, C, D]
    assert [str(each.recipe) for each in search.holding][:2] == [D, A]
    many = ByHand(
        limits(min_speedup="1.3x"), *(candidate(name, memory=4 + i, speedup=2.0) for i, name in enumerate((A, B, C, D)))
    )
    found = searched(many)
    assert len(found.holding) == FINALISTS
    assert D not in many.timed  # three are better by the aim, and hold


def test_where_times_are_the_aim_all_are_timed_and_the_front_first() -> None:
    gauge = ByHand(
        limits(max_accuracy_drop="1 pp"),
        candidate(A, memory=2, speedup=1.2),
        candidate(B, memory=4, speedup=3.0),  # dominated, as long as nobody knows the times
        candidate(C, memory=2, lost=9, speedup=9.0),
    )
    search = searched(gauge, "speedup")
    assert gauge.timed == [A, B]
    assert [str(each.recipe) for each in search.holding] == [B, A]


def test_without_limits_the_front_is_the_answer() -> None:
    gauge = ByHand(
        (),
        candidate(A, memory=2, lost=3, speedup=1.0),
        candidate(B, memory=4, speedup=1.0),
        candidate(C, memory=5, lost=3, speedup=1.0),
    )
    search = searched(gauge)
    assert [str(each.recipe) for each in search.front] == [A, B]
    assert [str(each.recipe) for each in finalists(search)] == [A, B]
    knee = candidate(C, memory=3, lost=3)  # between two that give up all of one figure
    found = searched(ByHand((), candidate(A, memory=2, lost=30), candidate(B, memory=8), knee))
    assert [str(each.recipe) for each in finalists(found)] == [C, A, B]


def test_where_nothing_holds_the_nearest_are_measured_whole() -> None:
    bounds = limits(min_memory_reduction="60%", max_accuracy_drop="1 pp")
    gauge = ByHand(bounds, candidate(A, memory=4, lost=1), candidate(B, memory=7, lost=1))
    search = searched(gauge)
    assert gauge.asked[A] == ["size", "memory", "size", "memory", "score"]
    assert search.trials[0].is_whole
    assert search.holding == []


def test_a_recipe_that_fails_costs_the_others_nothing() -> None:
    search = searched(ByHand(limits(max_size="9 MiB"), failed(A, "the recipe changed nothing"), candidate(B)))
    assert [each.why for each in search.trials] == ["the recipe changed nothing", ""]
    assert [str(each.recipe) for each in search.holding] == [B]


@pytest.mark.parametrize(("raised", "end"), [(TimeIsUp, "time"), (KeyboardInterrupt, "interrupt")])
def test_an_end_in_the_middle_of_a_step_leaves_what_is_known(raised: type[BaseException], end: str) -> None:
    def ends(recipe: str) -> None:
        if recipe == C:
            raise raised

    search = searched(ByHand(limits(max_size="9 MiB"), candidate(A), candidate(B, memory=4), candidate(C), ends=ends))
    assert search.end == end
    assert [str(each.recipe) for each in search.holding] == [B, A]
    assert [(str(each.recipe), each.why) for each in search.trials if each.case is None] == [
        (C, "explore ended before")
    ]


def test_times_are_measured_though_the_time_for_measuring_is_over() -> None:
    """Each stage has an end of its own."""
    asked: list[str] = []

    def ends(recipe: str) -> None:
        asked.append(recipe)
        if asked == [A, B]:
            raise TimeIsUp

    gauge = ByHand((), candidate(A, memory=4, speedup=2.0), candidate(B), ends=ends)
    gauge.cases[A] = candidate(A, memory=4, speedup=2.0)
    search = searched(gauge)
    assert (search.end, gauge.timed) == ("time", [A])


class Remembered:
    def __init__(self) -> None:
        self.kept: dict[str, Case] = {}

    def get(self, recipe: Expression) -> Case | None:
        return self.kept.get(recipe.text)

    def put(self, recipe: Expression, case: Case) -> None:
        self.kept[recipe.text] = case


def test_a_second_search_goes_on_where_the_first_ended() -> None:
    memory = Remembered()
    bounds = limits(max_size="4 MiB", max_accuracy_drop="1 pp")
    searched(ByHand(bounds, candidate(A, size=3), candidate(B, size=5)), memory=memory)
    again = ByHand(bounds, candidate(A, size=3), candidate(B, size=5), candidate(C, size=2))
    search = searched(again, memory=memory)
    assert list(again.asked) == [C]
    assert [each.is_cached for each in search.trials] == [True, True, False]
    looser = ByHand(limits(max_size="6 MiB", max_accuracy_drop="1 pp"), candidate(A, size=3), candidate(B, size=5))
    search = searched(looser, memory=memory)  # what was left out of B is needed now
    assert list(looser.asked) == [B]
    assert all(each.is_whole for each in search.trials)


# --- the finalists ---------------------------------------------------------------------------------------------------


def test_finalists_are_those_that_hold_then_those_of_which_nobody_knows() -> None:
    bounds = limits(min_speedup="1.3x")
    gauge = ByHand(
        bounds,
        candidate(A, memory=2, speedup=1.3),
        candidate(B, memory=3, speedup=2.0),
        candidate(C, memory=1, speedup=1.0),
    )
    assert [str(each.recipe) for each in finalists(searched(gauge))] == [B, A]


def test_of_neighbouring_settings_one_is_a_finalist_and_a_plain_recipe_is_left_to_fall_back_on() -> None:
    bounds = limits(max_size="9 MiB")
    ratios = [candidate(f"low-rank(ratio=0.{number})", memory=number) for number in range(1, 5)]
    gauge = ByHand(bounds, *ratios, candidate(A, memory=5), candidate(B, memory=6), candidate(C, memory=7))
    search = searched(gauge)
    assert [str(each.recipe) for each in finalists(search)] == [str(parse(each.recipe)) for each in ratios[:3]]
    search.trials = [replace(each, is_tuned=each.order not in (3, 6)) for each in search.trials]
    assert [str(each.recipe) for each in finalists(search)] == ["low-rank(ratio=0.1)", "low-rank(ratio=0.4)", C]
    search.trials = [replace(each, is_tuned=True) for each in search.trials]
    assert [str(each.recipe) for each in finalists(search)] == ["low-rank(ratio=0.1)", A, B]


def confirmed_by(
    *kept: bool, all_of_them: bool = False, ends: Callable[[int], None] = lambda left: None
) -> tuple[list[str], str, str]:
    """What was measured anew, who won, and whether it was cut short, where these keep a limit of 1 pp then."""
    bounds = limits(max_accuracy_drop="1 pp")
    chosen = [trial(candidate(name), order, bounds) for order, name in enumerate((A, B, C))]

    def measure(one: Trial, left: int) -> Case:
        ends(left)
        case = trial(candidate(str(one.recipe), lost=0 if kept[one.order] else 9), one.order, bounds).case
        assert case is not None
        return case

    done, end = confirm(chosen, measure, all_of_them=all_of_them)
    won = winner(done)
    return [str(each.trial.recipe) for each in done], "" if won is None else str(won.trial.recipe), end


def test_the_first_finalist_that_holds_anew_wins() -> None:
    assert confirmed_by(True, True, True) == ([A], A, "done")
    assert confirmed_by(False, True, True) == ([A, B], B, "done")
    assert confirmed_by(False, False, False) == ([A, B, C], "", "done")
    assert confirmed_by(False, True, True, all_of_them=True) == ([A, B, C], B, "done")


def test_the_end_leaves_the_finalists_that_were_measured() -> None:
    def ends(left: int) -> None:
        if left == 2:
            raise TimeIsUp

    assert confirmed_by(False, True, True, ends=ends) == ([A], "", "time")


# --- candidates that other machines measure --------------------------------------------------------------------------


@dataclass
class Others:
    """Machines that have found what is given; whoever waits for another recipe waits until the time is over."""

    known: dict[str, Trial]
    is_open: bool = True
    waits: bool = False

    def found(self, recipe: Expression) -> Trial | None:
        return self.known.get(recipe.text)

    def measured(self, recipe: Expression) -> Trial | None:
        if self.waits and recipe.text not in self.known:
            raise TimeIsUp
        return self.found(recipe)


def beside(others: Others, gauge: ByHand) -> Search:
    search = Search([parse(name) for name in gauge.cases], gauge.bounds, "memory", gauge, Forgetful(), elsewhere=others)
    search.run()
    return search


def test_what_others_found_is_not_measured_here_but_for_an_error() -> None:
    gauge = ByHand(limits(max_size="4 MiB"), candidate(A, size=3), candidate(B, size=3))
    others = Others({A: trial(candidate(A, size=3)), B: trial(failed(B, "no compiler there"))})
    search = beside(others, gauge)
    assert list(gauge.asked) == [B]
    assert all(each.is_whole for each in search.trials)


def test_what_others_found_stands_when_the_time_ends_before_its_turn() -> None:
    gauge = ByHand(limits(max_size="4 MiB"), candidate(A, size=3), candidate(B, size=3))
    search = beside(Others({B: trial(candidate(B, size=3))}, waits=True), gauge)
    assert search.end == "time"
    assert [each.case is not None for each in search.trials] == [False, True]
    assert list(gauge.asked) == []


def test_nothing_is_timed_while_others_may_work_on_this_machine() -> None:
    gauge = ByHand(limits(min_speedup="1.3x"), candidate(A, memory=4, speedup=2.0))
    search = Search([parse(A)], gauge.bounds, "memory", gauge, Forgetful(), elsewhere=Others({}))
    measured = search.measured(search.trials[0])
    assert measured.case is not None
    assert measured.case.timing is None
    assert gauge.timed == []
    search.elsewhere = Others({}, is_open=False)
    again = search.measured(search.trials[0])
    assert again.case is not None
    assert (again.case.timing is None, gauge.timed) == (False, [A])
