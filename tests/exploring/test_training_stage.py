"""Fine-tuning while exploring: last of all, of what would win and is near its limits on answers."""

from __future__ import annotations

from dataclasses import replace

from pytest_modelopt.exploring.choice import Trial
from pytest_modelopt.exploring.funnel import NOT_REACHED, Forgetful, Search, TimeIsUp
from pytest_modelopt.exploring.training import MOST_RECIPES, Training, worth_training
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.case import Case
from tests.exploring.candidates_by_hand import ByHand, candidate, limits, trial

TRAINED = "int8-dynamic(finetune='shop.training:tune')"
LOW_RANK = "low-rank(ratio=0.5)"


def searched(gauge: ByHand, *recipes: str) -> Search:
    search = Search([parse(each) for each in recipes], gauge.bounds, "memory", gauge, Forgetful())
    search.train = Training("shop.training:tune")
    search.run()
    return search


def test_what_is_near_its_limit_is_trained_last_and_wins() -> None:
    """int8-dynamic loses 5 pp of at most 2; low-rank 20 pp, and bf16 would take more memory than what holds."""
    gauge = ByHand(
        limits(max_accuracy_drop="2 pp"),
        candidate("int8-dynamic", memory=2, lost=18),
        candidate(LOW_RANK, memory=1, lost=72),
        candidate("bf16", memory=5, lost=18),
        candidate("int8-weight-only", memory=4),
        candidate(TRAINED, memory=2, lost=1),
    )
    search = searched(gauge, "int8-dynamic", LOW_RANK, "bf16", "int8-weight-only")
    assert list(gauge.asked) == ["int8-dynamic", LOW_RANK, "bf16", "int8-weight-only", TRAINED]
    assert [str(each.recipe) for each in search.holding] == [TRAINED, "int8-weight-only"]


def test_where_nothing_is_near_or_all_holds_nothing_is_trained() -> None:
    for lost in (0, 72):
        gauge = ByHand(limits(max_accuracy_drop="2 pp"), candidate("int8-dynamic", memory=2, lost=lost))
        assert len(searched(gauge, "int8-dynamic").trials) == 1
    unlimited = ByHand((), candidate("int8-dynamic", memory=2, lost=18))
    assert len(searched(unlimited, "int8-dynamic").trials) == 1


def test_the_end_in_the_middle_of_a_training_leaves_an_answer() -> None:
    def ends(recipe: str) -> None:
        if "finetune" in recipe:
            raise TimeIsUp

    gauge = ByHand(
        limits(max_accuracy_drop="2 pp"),
        candidate("int8-dynamic", memory=2, lost=18),
        candidate("int8-weight-only", memory=4),
        ends=ends,
    )
    search = searched(gauge, "int8-dynamic", "int8-weight-only")
    assert search.end == "time"
    assert [str(each.recipe) for each in search.holding] == ["int8-weight-only"]
    assert [(str(each.recipe), each.why) for each in search.trials][-1] == (TRAINED, NOT_REACHED)


def out(recipe: str, *, memory: float, lost: int) -> Trial:
    return trial(candidate(recipe, memory=memory, lost=lost), bounds=limits(max_accuracy_drop="2 pp"))


def test_those_that_were_left_out_early_are_near_by_what_was_seen_and_the_best_come_first() -> None:
    near = replace(out("bf16", memory=3, lost=0), why="it is out", is_out_early=True, drop_seen=0.06)
    far = replace(near, recipe=parse("fp16"), drop_seen=0.3)
    large = out("int8-dynamic", memory=4, lost=18)
    assert worth_training([large, near, far], "memory", None) == [near, large]
    best = out("int8-weight-only", memory=3.5, lost=0)
    assert worth_training([large, near, far, best], "memory", best) == [near]


def test_only_some_are_trained_each_once_and_by_the_last_step_that_can() -> None:
    chain, by_two = "prune-structured(ratio=0.3)+int8-dynamic", "low-rank(ratio=0.5, finetune='shop.training:tune')"
    plain = ("bf16", TRAINED, chain, LOW_RANK, "int8-weight-only")
    made = [parse(text).trained_by("shop.training:tune") for text in plain]
    assert [each and each.text for each in made] == [
        None,
        None,
        "prune-structured(ratio=0.3)+int8-dynamic(finetune='shop.training:tune')",
        by_two,
        "int8-weight-only(finetune='shop.training:tune')",
    ]
    cases: list[Case] = [candidate(text, memory=2, lost=18) for text in plain if text != TRAINED]
    cases += [candidate(each.text, memory=2, lost=18) for each in made if each is not None]
    gauge = ByHand(limits(max_accuracy_drop="2 pp"), *cases)
    search = searched(gauge, "bf16", chain, LOW_RANK, "int8-weight-only")
    assert [bool(each.recipe.training) for each in search.trials] == [False] * 4 + [True] * MOST_RECIPES
