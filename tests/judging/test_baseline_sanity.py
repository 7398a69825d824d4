"""An original that is no better than guessing makes a drop useless; a hard task, or a rare class, does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.results.answers import Agreement, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.wrong_pairs import Pairing
from tests.diagnosis.cases_by_hand import original_with, rules, sound
from tests.judging.judged import Judged, judged
from tests.reporting.records_by_hand import limit

DROP = limit("max_accuracy_drop", 0.01, "1 pp")


def original(right: int, examples: int, *, classes: int = 10, metric: str = "accuracy", **seen: int | None) -> Case:
    """An original that is right on `right` of `examples`, and a variant that answers the same."""
    made = sound(metric=metric, limits=(DROP,), agreement=Agreement(examples, 0, 0, 0))
    assert made.reference is not None
    assert made.variant is not None
    score = right / examples
    made = replace(
        made,
        reference=replace(made.reference, score=score, examples=examples),
        variant=replace(made.variant, score=score, examples=examples),
    )
    facts = {"target_classes": classes, "rarer_targets": examples - examples // classes, "predicted_classes": classes}
    return original_with(made, **{**facts, **seen})


def verdict(of: Case, name: str = "max_accuracy_drop") -> Judged:
    return judged(of, limit(name, 0.01, "1 pp"))


def test_a_little_above_guessing_is_still_guessing() -> None:
    """52 of 500 are 10.4%, above the 10% of guessing, and chance alone gives that much in two runs of five."""
    told = verdict(original(52, 500))
    assert (told.outcome, told.is_red) == ("not measured", True)
    assert (
        "the original itself is right on 10.4% of the 500 examples, not clearly more than guessing among 10 classes, "
        "and from there no drop means anything" in told.sentence
    )
    assert "original-useless" in rules(original(52, 500))


@pytest.mark.parametrize(
    ("right", "examples", "classes", "outcome"),
    [
        # Wilson's lower bound by hand, with z = 1.645: 62 of 500 give 10.18%, 61 give 9.994%.
        (61, 500, 10, "not measured"),
        (62, 500, 10, "pass"),
        # Two classes: 20 of 30 give 51.7%, 19 give 48.3%.
        (19, 30, 2, "not measured"),
        (20, 30, 2, "pass"),
        (500, 500, 10, "pass"),
    ],
)
def test_better_than_guessing_is_a_matter_of_evidence(right: int, examples: int, classes: int, outcome: str) -> None:
    assert verdict(original(right, examples, classes=classes)).outcome == outcome


@pytest.mark.parametrize(("right", "outcome"), [(14, "not measured"), (15, "pass"), (29, "pass")])
def test_of_few_examples_only_the_score_itself_is_asked(right: int, outcome: str) -> None:
    """29 examples of two classes: 15 right are more than half, and evidence of nothing."""
    assert verdict(original(right, 29, classes=2)).outcome == outcome


def test_guessing_may_name_as_many_classes_as_the_metric() -> None:
    """Five guesses among ten classes are right on half of the examples."""
    told = verdict(original(250, 500, metric="top-5"))
    assert told.outcome == "not measured"
    assert "right on 50% of the 500 examples, no more than 5 guesses among 10 classes" in told.sentence
    assert verdict(original(290, 500, metric="top-5")).outcome == "pass"
    assert verdict(original(14, 29, metric="top-5")).outcome == "not measured", "14 of 29 are less than half"
    assert verdict(original(15, 29, metric="top-5")).outcome == "pass"
    assert verdict(original(500, 500, classes=5, metric="top-5")).outcome == "not measured", "it cannot be wrong"


def test_one_first_answer_for_all_says_nothing_about_the_other_four() -> None:
    of = original(490, 500, metric="top-5", predicted_classes=1)
    assert verdict(of).outcome == "pass"
    assert verdict(of, "max_flips").outcome == "not measured", "flips are those of the first answer"


def test_against_its_own_answers_an_original_is_always_right() -> None:
    constant = original(500, 500, metric="agreement", predicted_classes=1)
    assert verdict(constant).outcome == verdict(constant, "max_flips").outcome == "pass"
    assert verdict(original(500, 500, classes=2, metric="agreement")).outcome == "pass"


def test_slices_of_a_useless_original_are_useless() -> None:
    slices = Slices(("0", "1"), True, (250, 250), (0.0, 0.0), (0, 0), (0, 0))
    told = verdict(replace(original(52, 500), slices=slices), "max_slice_drop")
    assert told.outcome == "not measured"
    assert "not clearly more than guessing" in told.sentence
    assert verdict(replace(original(400, 500), slices=slices), "max_slice_drop").outcome == "pass"


def test_a_floor_is_the_variants_own() -> None:
    assert verdict(original(52, 500), "min_accuracy").outcome == "pass"


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize(
    ("reference", "variant", "outcome"), [(0, 0, "pass"), (-1, 0, "pass"), (-1, -1, "not measured")]
)
def test_a_drop_is_judged_where_one_of_the_two_reaches_the_floor(
    reference: float, variant: float, outcome: str, higher_is_better: bool
) -> None:
    """As far as they are better than the floor; at it is not below it."""
    made, sign = (
        sound(metric="shop:score", higher_is_better=higher_is_better, agreement=None),
        1 if higher_is_better else -1,
    )
    assert made.reference is not None
    assert made.variant is not None
    made = replace(
        made,
        reference=replace(made.reference, score=5.0 + sign * reference),
        variant=replace(made.variant, score=5.0 + sign * variant),
    )
    assert judged(made, limit("max_accuracy_drop", 9.0, "9"), limit("min_accuracy", 5.0, "5")).outcome == outcome


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (original(0, 20, classes=2, predicted_classes=2), "not measured"),
        (original(0, 20, classes=2, metric="agreement"), "pass"),  # of its own answers it is none
        (original_with(replace(original(1, 2), metric="shop:score", agreement=None), worst_score=0.5), "not measured"),
        (original_with(replace(original(1, 2), metric="shop:score", agreement=None), worst_score=0.0), "pass"),
    ],
)
def test_from_the_worst_score_nothing_can_drop(of: Case, outcome: str) -> None:
    told = verdict(of)
    assert told.outcome == outcome
    assert (told.verdict.reason.code == "original-worst") == (outcome != "pass")


@pytest.mark.parametrize(("rarer", "outcome"), [(4, "pass"), (5, "not measured")])
def test_one_answer_for_all_shows_with_five_examples_of_other_classes(rarer: int, outcome: str) -> None:
    of = original(500 - rarer, 500, classes=2, rarer_targets=rarer, predicted_classes=1)
    assert verdict(of, "max_flips").outcome == outcome


def test_as_many_guesses_as_classes_but_one_need_more_examples_than_thirty() -> None:
    """Wilson's bound of 30 of 30 is 91.7%, and 19 of 20 guesses are right on 95%; of 100 it is 97.4%."""
    assert verdict(original(30, 30, classes=20, metric="top-19")).outcome == "not measured"
    assert verdict(original(100, 100, classes=20, metric="top-19")).outcome == "pass"


# --- the most frequent class -----------------------------------------------------------------------------------------


def fraud(right: int = 450, **seen: Any) -> Case:
    """Nine of ten examples are of one class."""
    return original(right, 500, classes=2, **{"rarer_targets": 50, **seen})


def test_an_original_that_the_most_frequent_class_would_match_is_told_and_not_refused() -> None:
    """It may well be meant: who looks for the rare class is wrong more often about the other one."""
    of = fraud(450, predicted_classes=2, most_predicted=480)
    assert verdict(of).outcome == "pass"
    assert rules(of) == ["majority-as-good"]
    assert rules(fraud(451)) == [], "one better than that"


def test_what_bounds_the_collapse_silences_the_note() -> None:
    for name in ("max_slice_drop", "max_flips"):
        assert "majority-as-good" not in rules(replace(fraud(), limits=(DROP, limit(name, 0.1, "10%"))))
    assert "majority-as-good" not in rules(replace(fraud(), limits=()))


def test_of_a_constant_or_guessing_original_the_worse_is_told() -> None:
    assert rules(fraud(predicted_classes=1)) == ["original-useless"]
    assert rules(original(40, 500)) == ["original-useless"]


def test_a_few_rare_examples_that_are_missed_are_no_finding() -> None:
    assert rules(fraud(496, rarer_targets=4)) == []


# --- any metric ------------------------------------------------------------------------------------------------------


def paired(score: float, shifted: float, *, higher: bool = True, metric: str = "m:score", **changes: Any) -> Case:
    """An original under a metric of the project's own, whose answers score `shifted` in wrong pairs."""
    made = sound(metric=metric, limits=(limit("max_accuracy_drop", 0.01, "0.01"),), higher_is_better=higher)
    assert made.reference is not None
    assert made.variant is not None
    made = replace(made, reference=replace(made.reference, score=score), variant=replace(made.variant, score=score))
    found = Pairing(100, score, shifted, score + 1, score + 1, changed=90, neighbours=50.0, others=50.0)
    return original_with(made, target_classes=None, pairing=replace(found, **changes))


@pytest.mark.parametrize(
    ("score", "shifted", "higher", "outcome"),
    [
        (0.5, 0.4, True, "pass"),
        (0.5, 0.5, True, "not measured"),
        (0.5, 0.6, True, "not measured"),
        (0.5, 0.5 - 1e-8, True, "not measured"),  # another order of the same sum
        (3.0, 4.0, False, "pass"),
        (3.0, 3.0, False, "not measured"),
        (3.0, 2.0, False, "not measured"),
        (-2.0, -1.0, True, "not measured"),
        (0.0, 0.0, True, "not measured"),
    ],
)
def test_a_score_that_wrong_pairs_reach_says_nothing(score: float, shifted: float, higher: bool, outcome: str) -> None:
    of = paired(score, shifted, higher=higher)
    assert verdict(of).outcome == outcome
    assert verdict(of, "min_accuracy").outcome != "not measured"
    assert rules(of) == ([] if outcome == "pass" else ["original-useless"])


def test_both_scores_are_told() -> None:
    assert (
        "the original itself scores 0.25, and 0.31 with each answer beside the target of the next example (100 "
        "examples): the score does not tell right answers from others, so no drop means anything"
    ) in verdict(paired(0.25, 0.31)).sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"neighbours": 4.0},  # sorted by target, or a series
        {"neighbours": 0.0, "others": 0.0},  # one target for all
        {"changed": 4},  # a few examples, or all but a few with one target
        {"shifted_further": 0.5, "one_answer": 0.7},  # looks at no single pair: a mean of the outputs, a distribution
        {"shifted_further": None},
        {"one_answer": None},
    ],
)
def test_where_nobody_can_tell_nothing_is_said(changes: dict[str, Any]) -> None:
    assert verdict(paired(0.5, 0.5)).outcome == "not measured"
    assert verdict(paired(0.5, 0.5, **changes)).outcome == "pass"


def test_a_score_that_no_answer_changes_is_told() -> None:
    """The same whatever stands beside what, and for one answer to everything, too."""
    assert verdict(paired(0.0, 0.0, shifted_further=0.0, one_answer=0.0)).outcome == "not measured"


def test_a_record_without_wrong_pairs_is_judged_as_before() -> None:
    assert verdict(original_with(paired(0.5, 0.5), pairing=None)).outcome == "pass"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"changed": 4}, "pass"),
        ({"changed": 5}, "not measured"),
        ({"neighbours": 25.0}, "pass"),  # half as far apart as others
        ({"neighbours": 25.1}, "not measured"),
    ],
)
def test_wrong_pairs_show_something_from_five_other_targets_among_unlike_neighbours(
    changes: dict[str, Any], outcome: str
) -> None:
    assert verdict(paired(0.5, 0.5, **changes)).outcome == outcome


@pytest.mark.parametrize(("rarer", "found"), [(4, []), (5, ["majority-as-good"])])
def test_the_most_frequent_class_is_told_of_from_five_examples_of_others(rarer: int, found: list[str]) -> None:
    of = original(500 - rarer, 500, classes=2, rarer_targets=rarer, predicted_classes=2, most_predicted=480)
    assert rules(of) == found
