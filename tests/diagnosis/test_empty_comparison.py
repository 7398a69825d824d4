"""The gate must not lie: nothing that compares nothing passes, and no drop from guessing does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.diagnosis.empty_comparison import compares_nothing
from pytest_modelopt.reporting.messages.comparison_findings import format_nothing_compared
from pytest_modelopt.results.answers import Agreement
from pytest_modelopt.results.case import Case
from tests.diagnosis.cases_by_hand import SETTINGS, SOUND, only, original_with, rules, sound, variant_with
from tests.judging.judged import Judged, judged
from tests.reporting.records_by_hand import limit, measurement

DROP = limit("max_accuracy_drop", 0.01, "1 pp")


def scored(original: float, variant: float, metric: str = "accuracy") -> Case:
    """The two scores are given; for a classifier no prediction changed."""
    made = sound(metric=metric, limits=(DROP,), agreement=Agreement(360, 0, 0, 0) if metric == "accuracy" else None)
    assert made.reference is not None
    assert made.variant is not None
    return replace(
        made, reference=replace(made.reference, score=original), variant=replace(made.variant, score=variant)
    )


def verdict(of: Case) -> Judged:
    return judged(of, *of.limits)


def test_a_drop_from_chance_is_never_kept() -> None:
    told = verdict(scored(0.1, 0.1))
    assert (told.outcome, told.is_red) == ("not measured", True)
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_accuracy_drop 1 pp was not measured, which counts as broken (the original itself "
        "is right on 10% of the 360 examples, no more than guessing among 10 classes, and from there no drop means "
        "anything). (budgets.yaml:23)"
    )
    finding = only(scored(0.1, 0.1))
    assert (finding.rule, finding.explains) == ("original-useless", ("score", "predictions"))
    assert "loads the trained weights" in finding.text


def test_better_than_chance_is_not_useless() -> None:
    assert verdict(scored(0.14, 0.14)).outcome == "pass"
    assert rules(scored(0.14, 0.14)) == []


def test_a_drop_from_a_constant_answer_is_never_kept() -> None:
    """Right on 90%, since nine of ten examples are of that class."""
    of = original_with(scored(0.9, 0.9), predicted_classes=1, most_predicted=360, rarer_targets=40)
    assert verdict(of).outcome == "not measured"
    assert "predicts the same class for every example, of 10 classes" in verdict(of).sentence
    assert rules(of) == ["original-useless"]
    flips = replace(of, limits=(limit("max_flips", 0.1, "10%"),), agreement=Agreement(360, 0, 0, 0))
    assert verdict(flips).outcome == "not measured"


def test_flips_need_no_right_labels() -> None:
    """Without labels one may still ask that predictions stay: guessing against made-up targets says nothing."""
    flips = replace(scored(0.0, 0.0), limits=(limit("max_flips", 0.1, "10%"),), agreement=Agreement(360, 0, 0, 3))
    assert verdict(flips).outcome == "pass"


@pytest.mark.parametrize("classes", [None, 1])
def test_data_that_cannot_tell_is_not_judged(classes: int | None) -> None:
    of = original_with(scored(0.05, 0.05), target_classes=classes, predicted_classes=classes and 1)
    assert verdict(of).outcome == "pass"
    assert rules(of) == []


@pytest.mark.parametrize("classes", [None, 1, 10])
def test_from_the_worst_score_nothing_can_drop_whatever_the_data_is(classes: int | None) -> None:
    of = original_with(scored(0.0, 0.0), target_classes=classes)
    assert verdict(of).is_red
    assert "the original itself scores 0%, the worst that accuracy can give, and from there nothing" in (
        verdict(of).sentence
    )
    assert rules(of) == ["original-useless"]


def test_the_worst_score_is_what_the_metric_says_it_is() -> None:
    for score, worst, outcome in [(0.0, 0.0, "not measured"), (1.0, 1.0, "not measured"), (0.1, 0.0, "pass")]:
        assert verdict(original_with(scored(score, score, metric="F1Score"), worst_score=worst)).outcome == outcome


def test_another_metric_has_no_chance_that_is_known() -> None:
    assert verdict(scored(0.0, 0.0, metric="m:f1")).outcome == "pass"
    assert rules(scored(0.0, 0.0, metric="m:f1")) == []


def test_a_drop_from_below_the_floor_is_not_kept() -> None:
    floor = limit("min_accuracy", 0.7, "70%", level="warn")
    both_below = replace(scored(0.62, 0.62), limits=(DROP, floor))
    assert verdict(both_below).outcome == "not measured"
    assert "does not reach min_accuracy 70%" in verdict(both_below).sentence
    assert verdict(replace(scored(0.7, 0.7), limits=(DROP, floor))).outcome == "pass"
    assert verdict(replace(scored(0.69, 0.71), limits=(DROP, floor))).outcome == "pass", "the variant reaches it itself"


def test_a_floor_of_a_loss_is_a_ceiling() -> None:
    floor, drop = limit("min_accuracy", 3.0, "3"), limit("max_accuracy_drop", 0.1, "0.1")
    for score, outcome in ((3.5, "not measured"), (2.9, "pass")):
        of = replace(scored(score, score, metric="m:loss"), higher_is_better=False, limits=(drop, floor))
        assert verdict(of).outcome == outcome


def test_a_variant_that_is_the_original_is_refused() -> None:
    same = variant_with(digest="a", answers="a")
    assert compares_nothing(same)
    assert format_nothing_compared(same).startswith(
        "nothing was compared: after int8-dynamic the variant is the original"
    )


@pytest.mark.parametrize(
    "seen",
    [
        {"digest": "b"},
        {"answers": "b"},
        {"compiled": True},
        {"compiled": None},
        {"settings": SETTINGS | {"threads": "2"}},
        {"digest": None},
    ],
)
def test_a_variant_that_differs_in_anything_is_compared(seen: dict[str, Any]) -> None:
    assert not compares_nothing(variant_with(**{"digest": "a", "answers": "a", **seen}))


def test_two_compiled_models_are_not_said_to_be_one() -> None:
    """What the compiler made of them is in no digest."""
    assert not compares_nothing(original_with(variant_with(digest="a", answers="a", compiled=True), compiled=True))


def test_what_was_not_looked_at_is_not_refused() -> None:
    bare = replace(sound(), reference=measurement(None), variant=measurement("r"))
    assert not compares_nothing(bare)
    blind = replace(SOUND, digest=None)
    assert not compares_nothing(original_with(variant_with(digest=None, answers="a"), digest=blind.digest))


def test_another_runtime_is_a_difference() -> None:
    of = variant_with(digest="a", answers="a")
    assert of.variant is not None
    assert not compares_nothing(replace(of, variant=replace(of.variant, runtime="OpenVINO")))


def test_one_rare_example_that_is_missed_shows_nothing() -> None:
    of = original_with(scored(0.95, 0.95), predicted_classes=1, most_predicted=20, rarer_targets=1)
    assert verdict(of).outcome == "pass"


def test_chance_is_among_all_classes_that_the_model_tells_apart() -> None:
    """Two of a thousand classes in the data: right on 45% is far from guessing."""
    of = original_with(scored(0.45, 0.45), target_classes=2, output_classes=1000, predicted_classes=9)
    assert verdict(of).outcome == "pass"


def test_an_original_that_the_most_frequent_class_would_match() -> None:
    """Right on 324 of 360, and 324 are of one class: a note, since nothing is wrong with looking for the others."""
    of = original_with(scored(0.9, 0.9), target_classes=2, predicted_classes=2, most_predicted=350, rarer_targets=36)
    finding = only(of)
    assert (finding.rule, finding.explains, finding.is_note) == ("majority-as-good", ("score",), True)
    assert finding.text.startswith(
        "the original is right on 90% of the examples, and the most frequent class as the answer to all of them would "
        "be right on 90%: max_accuracy_drop cannot show a variant that gives no other answer any more"
    )
    assert verdict(of).outcome == "pass"
