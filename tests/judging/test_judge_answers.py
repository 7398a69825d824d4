"""Verdicts on answers, from cases made by hand: of the population, and of variants that do not repeat themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.results.answers import Interval, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import case_from_data, case_to_data
from tests.judging.answers_by_hand import Z2, answered, text, varying, verdict
from tests.reporting.records_by_hand import case, measurement

# --- the population --------------------------------------------------------------------------------------------------


def in_population(*arguments: Any, **changes: Any) -> Case:
    return answered(*arguments, inference="population", **changes)


def test_no_change_of_450_examples_is_no_proof_for_the_population() -> None:
    """z2 / (450 + z2) is 0.598 points, and it takes z2 / 0.005 - z2 = 538.4 examples to get below half a point."""
    of = in_population(450)
    assert text(of, "max_accuracy_drop", 0.006) == (
        "holds: 0 pp measured on 450 examples, at most 0.598 pp in the population (95%)"
    )
    told = verdict(of, "max_accuracy_drop", 0.005)
    assert (told.outcome, told.measured, told.is_red) == ("inconclusive", 0.0, False)
    assert "0 pp measured on 450 examples, -0.598 pp to 0.598 pp in the population (95% on each side)" in told.sentence
    assert "the limit lies between: about 540 examples would be needed" in told.sentence
    assert verdict(answered(450), "max_accuracy_drop", 0.005).outcome == "pass", "the default is about these examples"


def test_next_to_the_limit_it_takes_more_examples_than_a_record_can_count_and_the_record_is_written() -> None:
    told = verdict(in_population(300, 1, 0), "max_accuracy_drop", 0.00333333333)
    assert told.outcome == "inconclusive"
    assert "about 1,000,000,000,000,000,000 examples would be needed" in told.sentence
    case = judge(replace(in_population(300, 1, 0), limits=(told.verdict.limit,)), timed_limits=0)
    assert case_from_data(case_to_data(case)).verdicts == case.verdicts


@pytest.mark.parametrize(
    ("value", "outcome", "words"),
    [
        # Tango's bounds for (40, 20, 1000), computed outside: 0.7426 and 3.3284 points.
        (0.0333, "pass", "2 pp measured on 1,000 examples, at most 3.328 pp in the population (95%)"),
        (0.0332, "inconclusive", "0.743 pp to 3.33 pp in the population"),
        (0.0075, "inconclusive", "0.743 pp to 3.33 pp in the population"),
        (0.0074, "fail", "2 pp measured on 1,000 examples, at least 0.743 pp in the population (95%)"),
    ],
)
def test_a_drop_is_judged_by_tangos_bounds(value: float, outcome: str, words: str) -> None:
    told = verdict(in_population(1000, 40, 20), "max_accuracy_drop", value)
    assert told.outcome == outcome
    assert words in told.sentence


def test_a_bound_exactly_on_the_limit_holds() -> None:
    """A drop of 100 points bounds nothing: every bound is at most 1."""
    assert verdict(in_population(5, 5, 0, score=1.0), "max_accuracy_drop", 1.0).outcome == "pass"
    assert verdict(in_population(5, score=0.0), "min_accuracy", 0.0).outcome == "pass"
    assert verdict(in_population(5, flips=5), "max_flips", 1.0).outcome == "pass"


@pytest.mark.parametrize(
    ("of", "name", "value"),
    [
        (in_population(450), "max_accuracy_drop", 0.0),
        (in_population(1000, 7), "max_accuracy_drop", 0.007),
        (in_population(450, score=1.0), "min_accuracy", 1.0),
        (in_population(450), "max_flips", 0.0),
    ],
)
def test_what_no_number_of_examples_decides_says_so(of: Case, name: str, value: float) -> None:
    told = verdict(of, name, value)
    assert told.outcome == "inconclusive"
    assert "what was measured is the limit itself, which no number of examples decides" in told.sentence


def test_flips_and_the_floor_of_a_score_are_judged_by_wilsons_bounds() -> None:
    """z2 / (450 + z2) again: no flip of 450, and no mistake in 450."""
    edge = Z2 / (450 + Z2)
    of = in_population(450, score=1.0)
    assert verdict(of, "max_flips", edge + 1e-9).outcome == "pass"
    assert verdict(of, "max_flips", edge - 1e-9).outcome == "inconclusive"
    assert verdict(of, "min_accuracy", 1 - edge - 1e-9).outcome == "pass"
    assert verdict(of, "min_accuracy", 1 - edge + 1e-9).outcome == "inconclusive"
    assert "holds: 100% measured on 450 examples, at least 99.4% in the population" in text(of, "min_accuracy", 0.99)


def test_a_floor_is_broken_where_even_the_upper_bound_lies_below_it() -> None:
    """81 of 263 are 30.8%; the upper bound is where (p - 81/263) = z sqrt(p (1 - p) / 263)."""
    of = in_population(263, score=81 / 263)
    upper = 0.3568
    assert (upper - 81 / 263) / math.sqrt(upper * (1 - upper) / 263) == pytest.approx(math.sqrt(Z2), abs=0.01)
    told = verdict(of, "min_accuracy", 0.37)
    assert told.outcome == "fail"
    assert "is broken: 30.8% measured on 263 examples, at most 35.7% in the population (95%)" in told.sentence
    assert verdict(of, "min_accuracy", 0.35).outcome == "inconclusive"
    flips = in_population(263, flips=81)
    assert verdict(flips, "max_flips", 0.25).outcome == "fail"
    assert verdict(flips, "max_flips", 0.37).outcome == "pass"
    assert verdict(flips, "max_flips", 0.3).outcome == "inconclusive"


def scored(interval: Interval | None, why: str = "", **changes: Any) -> Case:
    """A loss of 2.0 that became 2.5, on 400 examples."""
    of = case(
        metric="m:loss",
        higher_is_better=False,
        reference=replace(measurement(None, score=2.0), examples=400),
        variant=replace(measurement("r", score=2.5), examples=400),
    )
    return replace(of, interval=interval, no_interval=why, inference="population", **changes)


BOOTSTRAP = Interval(0.4, 0.62)


@pytest.mark.parametrize(
    ("value", "outcome", "words"),
    [
        (0.62, "pass", "0.5 measured on 400 examples, at most 0.62 in the population (95%)"),
        (0.61, "inconclusive", "0.4 to 0.62 in the population (95% on each side), and the limit lies between: about"),
        (0.4, "inconclusive", "about 400 examples would be needed"),
        (0.39, "fail", "0.5 measured on 400 examples, at least 0.4 in the population (95%)"),
    ],
)
def test_a_drop_of_another_metric_is_judged_by_its_interval(value: float, outcome: str, words: str) -> None:
    told = verdict(scored(BOOTSTRAP), "max_accuracy_drop", value)
    assert told.outcome == outcome
    assert words in told.sentence


def test_half_the_distance_takes_four_times_the_examples() -> None:
    """The upper half is 0.12 wide, and 0.06 are left to the limit: 400 * 4."""
    assert "about 1,600 examples would be needed" in text(scored(BOOTSTRAP), "max_accuracy_drop", 0.56)


def test_an_interval_that_does_not_hold_its_figure_cannot_pass() -> None:
    assert verdict(scored(replace(BOOTSTRAP, low=0.1, high=0.2)), "max_accuracy_drop", 0.3).outcome == "inconclusive"


def test_too_few_changed_examples_leave_the_population_undecided() -> None:
    """Nothing is wrong with the metric, nor with a variant that answers nearly everything as before."""
    why = "2 of 400 examples are scored differently, and 5 are needed for an interval"
    told = verdict(scored(None, why, interval_lacks_examples=True), "max_accuracy_drop", 100.0)
    assert (told.outcome, told.is_red) == ("inconclusive", False)
    assert f"is inconclusive: 0.5 measured on 400 examples; {why}" in told.sentence


def test_without_an_interval_the_population_was_not_measured() -> None:
    told = verdict(scored(None, "F1 is no function of sums"), "max_accuracy_drop", 100.0)
    assert (told.outcome, told.is_red) == ("not measured", True)
    assert (
        "(the drop has no interval: F1 is no function of sums; `inference: set` judges these examples themselves)"
        in told.sentence
    )
    floor = verdict(scored(BOOTSTRAP), "min_accuracy", 100.0)
    assert floor.outcome == "not measured"
    assert "of such a metric only the drop gets an interval; `inference: set`" in floor.sentence
    slices = Slices(("a", "b"), False, (200, 200), (0.1, 0.2))
    assert verdict(scored(BOOTSTRAP, slices=slices), "max_slice_drop", 100.0).outcome == "not measured"


def test_a_limit_on_anything_else_knows_no_population() -> None:
    assert "population" not in verdict(in_population(450), "max_size", 2.0**30).sentence


# --- variants that do not repeat themselves --------------------------------------------------------------------------


# 90% and then 88%: 2 points lost, and 12 predictions changed between the passes, where the second is right on 87.5%.
VARYING = varying(answered(400, 8, 0, score=0.9), 0.875, 12)


@pytest.mark.parametrize(("value", "outcome"), [(0.025, "pass"), (0.0249, "inconclusive"), (0.02, "inconclusive")])
def test_a_drop_must_hold_in_every_pass(value: float, outcome: str) -> None:
    told = verdict(VARYING, "max_accuracy_drop", value)
    assert told.outcome == outcome
    assert "2 pp measured, and 2 pp to 2.5 pp in other passes" in told.sentence
    assert (
        "the variant answers differently each time: 12 of 400 predictions changed between two passes over the same "
        "examples" in told.sentence
    )


def test_a_drop_that_no_pass_keeps_is_broken() -> None:
    told = verdict(VARYING, "max_accuracy_drop", 0.0199)
    assert told.outcome == "fail"
    assert told.measured == pytest.approx(0.02)
    assert "0.01 pp beyond the limit; the variant answers differently" in told.sentence


def test_all_pairs_of_passes_count_where_both_sides_vary() -> None:
    """The original 90% or 91%, the variant 88% or 87.5%: 2 to 3.5 points."""
    of = varying(VARYING, 0.91, 6, side="reference")
    assert verdict(of, "max_accuracy_drop", 0.035).outcome == "pass"
    assert verdict(of, "max_accuracy_drop", 0.0349).outcome == "inconclusive"
    told = verdict(of, "max_accuracy_drop", 0.0199)
    assert told.outcome == "fail"
    assert "the original answers differently each time: 6 of 400" in told.sentence
    assert "; the variant answers differently each time: 12 of 400" in told.sentence


@pytest.mark.parametrize(("value", "outcome"), [(0.875, "pass"), (0.876, "inconclusive"), (0.88, "inconclusive")])
def test_a_floor_must_be_reached_in_every_pass(value: float, outcome: str) -> None:
    assert verdict(VARYING, "min_accuracy", value).outcome == outcome
    assert verdict(VARYING, "min_accuracy", 0.8801).outcome == "fail"


def test_own_flips_are_the_floor_of_flips() -> None:
    """8 flips between the first passes, 12 within the variant: from none to 20 between other passes."""
    assert verdict(VARYING, "max_flips", 0.05).outcome == "pass"
    told = verdict(VARYING, "max_flips", 0.049)
    assert told.outcome == "inconclusive"
    assert "2% measured, and 0% to 5% in other passes, and the limit lies between; the variant answers" in told.sentence
    many = varying(answered(400, 100), 0.65, 12)
    assert verdict(many, "max_flips", 0.21).outcome == "fail", "at least 88 of 400 in any pass"
    assert verdict(many, "max_flips", 0.22).outcome == "inconclusive"


def test_own_flips_that_nobody_counted_leave_flips_undecided() -> None:
    assert verdict(varying(answered(400, 8), 0.88, None), "max_flips", 0.5).outcome == "inconclusive"


def test_a_second_pass_without_a_score_leaves_the_drop_undecided() -> None:
    told = verdict(varying(answered(400, 8), None, None), "max_accuracy_drop", 0.5)
    assert told.outcome == "inconclusive"
    assert "its answers changed between two passes over the same examples" in told.sentence


def test_a_metric_without_predictions_tells_both_scores() -> None:
    of = varying(replace(scored(None), inference="set"), 2.6, None)
    assert verdict(of, "max_accuracy_drop", 0.61).outcome == "pass"
    told = verdict(of, "max_accuracy_drop", 0.55)
    assert told.outcome == "inconclusive"
    assert "the variant answers differently each time: its score was 2.5 and 2.6 in two passes" in told.sentence


def test_a_side_that_varies_without_another_prediction_is_judged_as_it_is() -> None:
    of = varying(answered(400, 8), 0.88, 0)
    assert verdict(of, "max_accuracy_drop", 0.02).outcome == "pass"
    assert verdict(of, "max_flips", 0.0199).outcome == "fail"


def test_the_population_and_all_passes_must_agree() -> None:
    of = varying(in_population(1000, 5, score=0.9), 0.875, 30)
    assert verdict(varying(of, 0.895, 3), "max_accuracy_drop", 0.02).outcome == "pass"
    told = verdict(of, "max_accuracy_drop", 0.02)
    assert told.outcome == "inconclusive"
    assert "30 of 1,000 predictions changed" in told.sentence
