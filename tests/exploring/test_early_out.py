"""A candidate whose first answers are certainly too bad: it is out, and no other is."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.exploring.early_out import RISK, why_out
from pytest_modelopt.exploring.funnel import Forgetful, Search
from pytest_modelopt.exploring.tuning import tuner_of
from pytest_modelopt.measuring.controller.looks import LOOKS
from pytest_modelopt.measuring.controller.side_by_side import GoesOn
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case
from tests.exploring.candidates_by_hand import ByHand, candidate, limits

ONE_PP = limits(max_accuracy_drop="1 pp")


@pytest.mark.parametrize(
    ("seen", "bounds", "why"),
    [
        (Agreement(64, 40, 0, 50), ONE_PP, "64 examples, drawn at random, show at least 2"),
        (Agreement(64, 3, 0, 60), ONE_PP, ""),  # nobody bounds flips
        (Agreement(64, 3, 0, 60), limits(max_flips="5%"), "64 examples, drawn at random, show at least"),
        (Agreement(64, 30, 30, 60), ONE_PP, ""),  # as many won as lost
        (Agreement(64, 4, 0, 4), ONE_PP, ""),  # 6 pp of these, and not certain
        (Agreement(640, 60, 0, 60), ONE_PP, "640 examples"),
        (Agreement(64, 64, 0, 64), limits(max_size="1 MiB"), ""),
        (Agreement(64, 64, 0, 64), tuple(replace(each, level="warn") for each in ONE_PP), ""),
    ],
)
def test_only_what_is_certain_is_out(seen: Agreement, bounds: tuple, why: str) -> None:  # type: ignore[type-arg]
    case = replace(candidate("bf16"), agreement=seen, inference="population")
    assert why_out(case, bounds).startswith(why)
    assert bool(why_out(case, bounds)) == bool(why)


def test_of_these_very_examples_no_more_can_be_won_than_the_original_answers_wrongly() -> None:
    """It answers 351 of 360 rightly: at most 2.5 pp can be won. Of others nobody knows."""
    case = replace(candidate("bf16"), agreement=Agreement(40, 12, 0, 12))
    bounds = limits(max_accuracy_drop="3 pp")
    assert why_out(case, bounds)
    assert not why_out(replace(case, inference="population"), bounds)


def test_a_candidate_at_its_limit_is_out_by_chance_no_more_often_than_is_said() -> None:
    """One that loses 5% and wins none, of 2,048 examples, at a limit of 5 pp: 1,000 times all looks."""
    draw, bounds, out = random.Random(1), limits(max_accuracy_drop="5 pp"), 0
    at_limit = candidate("bf16")
    assert at_limit.reference is not None
    at_limit = replace(at_limit, reference=replace(at_limit.reference, score=1.0))  # nothing can be won
    for _ in range(1000):
        seen, lost = 0, 0
        for share in LOOKS:
            more = round(2048 * share) - seen
            seen, lost = seen + more, lost + sum(draw.random() < 0.05 for _ in range(more))
            if why_out(replace(at_limit, agreement=Agreement(seen, lost, 0, lost)), bounds):
                out += 1
                break
    assert out <= 1000 * RISK + 3 * (1000 * RISK) ** 0.5


class Looking(ByHand):
    """Shows what is seen at each look of the recipes that have one."""

    seen: dict[str, Agreement]

    def measure(self, recipe: Expression, goes_on: GoesOn) -> Case:
        case = self.cases[recipe.text]
        if recipe.text in self.seen and not goes_on(replace(case, agreement=self.seen[recipe.text]), "look"):
            assert case.variant is not None
            side = replace(case.variant, score=None, observations=None)
            return self.judge(replace(case, variant=side, timing=None))
        return super().measure(recipe, goes_on)


def looked(*others: Case) -> tuple[Search, Looking]:
    bad = candidate("low-rank(ratio=0.5)", memory=2, lost=300)
    gauge = Looking(ONE_PP, bad, *others)
    gauge.seen = {"low-rank(ratio=0.5)": Agreement(64, 50, 0, 50)}
    search = Search([parse(text) for text in gauge.cases], ONE_PP, "memory", gauge, Forgetful())
    search.run()
    return search, gauge


def test_the_search_leaves_it_out_with_the_reason_and_tries_other_settings_of_it() -> None:
    search, gauge = looked(candidate("int8-dynamic", memory=4))
    bad = search.trials[0]
    assert (bad.is_out_early, bad.drop_seen) == (True, 50 / 64)
    assert bad.why.startswith("64 examples, drawn at random, show at least ")
    assert bad.why.endswith(": it breaks max_accuracy_drop 1 pp")
    assert list(gauge.asked) == ["int8-dynamic"]
    assert [str(each.recipe) for each in search.holding] == ["int8-dynamic"]
    assert tuner_of(search.trials, 1_000_000, 1) is not None


def test_where_nothing_else_is_known_all_its_answers_say_how_far_it_is() -> None:
    search, _ = looked()
    (trial,) = search.trials
    assert isinstance(trial, Trial)
    assert not trial.is_out_early
    assert trial.case is not None
    assert [verdict.outcome for verdict in trial.case.verdicts] == ["fail"]
    assert trial.case.verdicts[0].measured == pytest.approx(300 / 360)
