"""Verdicts on answers, from cases made by hand: slices, the population, and variants that do not repeat themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.budgets.judge import judge
from pytest_modelopt.record.answers import Agreement, Interval, Repeat, Slices
from pytest_modelopt.record.model import Case, Verdict
from tests.report.records_by_hand import case, limit, measurement

Z2 = 1.6448536269514722**2
"""Nothing seen on N examples is bounded by z2 / (N + z2), which is Wilson's bound and Tango's."""


def answered(
    examples: int = 450, lost: int = 0, won: int = 0, flips: int | None = None, score: float = 0.9, **changes: Any
) -> Case:
    """A classifier that was right on `score`, and what the variant changed."""
    drop = (lost - won) / examples
    made = case(
        original=replace(measurement(None, score=score), examples=examples),
        variant=replace(measurement("int8-dynamic", score=score - drop), examples=examples),
        agreement=Agreement(examples, lost, won, lost + won if flips is None else flips),
    )
    return replace(made, **changes)


def verdict(of: Case, name: str, value: float, text: str = "L") -> Verdict:
    (told,) = judge(replace(of, limits=(limit(name, value, text),)), timed_limits=0).verdicts
    return told


def text(of: Case, name: str, value: float) -> str:
    """What the verdict says between the limit and the place that states it."""
    told = verdict(of, name, value).sentence
    beginning = f"digits-vit/int8-dynamic: {name} L "
    assert told.startswith(beginning)
    return told.removeprefix(beginning).removesuffix(". (budgets.yaml:23)")


# --- slices ----------------------------------------------------------------------------------------------------------


def classes(*columns: tuple[int, int, int], names: tuple[str, ...] | None = None) -> Slices:
    """For each class: examples, right to wrong, wrong to right."""
    examples, lost, won = (tuple(column) for column in zip(*columns, strict=True))
    drops = tuple((less - more) / count for count, less, more in columns)
    return Slices(names or tuple(str(n) for n in range(len(columns))), names is None, examples, drops, lost, won)


def sliced(*columns: tuple[int, int, int], names: tuple[str, ...] | None = None, **changes: Any) -> Case:
    examples, lost, won = (sum(column) for column in zip(*columns, strict=True))
    return answered(examples, lost, won, slices=classes(*columns, names=names), **changes)


THREE = sliced((200, 1, 0), (205, 0, 2), (45, 4, 1))


def test_the_worst_slice_is_named_with_its_size_and_both_counts() -> None:
    """4 lost and 1 won of 45 are 3/45, which is 6.67 points."""
    told = verdict(THREE, "max_slice_drop", 0.05, "5 pp")
    assert (told.outcome, told.measured) == ("fail", pytest.approx(3 / 45))
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_slice_drop 5 pp is broken: class 2 lost 4 of 45 examples and won 1 (6.67 pp), "
        "1.67 pp beyond the limit. (budgets.yaml:23)"
    )
    assert text(THREE, "max_slice_drop", 0.07) == "holds: at worst class 2 lost 4 of 45 examples and won 1 (6.67 pp)"


@pytest.mark.parametrize(("value", "outcome"), [(0.075, "pass"), (0.0749, "fail")])
def test_a_slice_exactly_at_the_limit_holds_whatever_floats_make_of_it(value: float, outcome: str) -> None:
    assert verdict(sliced((40, 3, 0), (60, 0, 0)), "max_slice_drop", value).outcome == outcome


def test_a_gain_on_every_slice_is_a_drop_below_nothing() -> None:
    told = verdict(sliced((40, 0, 3), (60, 0, 3)), "max_slice_drop", 0.0)
    assert (told.outcome, told.measured) == ("pass", pytest.approx(-0.05))


def test_the_other_slices_beyond_the_limit_are_named_too() -> None:
    told = text(sliced(*(5 * ((100, 8, 0),)), (100, 20, 0), (100, 0, 0)), "max_slice_drop", 0.05)
    assert told == (
        "is broken: class 5 lost 20 of 100 examples and won 0 (20 pp), 15 pp beyond the limit; 5 more of 7 slices "
        "beyond the limit: class 0 (8 pp of 100), class 1 (8 pp of 100), class 2 (8 pp of 100) and 2 more"
    )


def test_a_broken_slice_of_few_examples_says_how_little_it_says() -> None:
    """One of three examples: exact on the set, so it stays broken."""
    told = verdict(sliced((3, 1, 0), (300, 0, 0)), "max_slice_drop", 0.05)
    assert told.outcome == "fail"
    assert (
        "class 0 lost 1 of 3 examples and won 0 (33.3 pp), 28.3 pp beyond the limit; with 3 examples a single one is "
        "33.3 pp, more than the limit, so it says little beyond them: it takes 20 examples of a slice before one is "
        "within it" in told.sentence
    )
    assert "a single one" not in text(sliced((20, 2, 0), (300, 0, 0)), "max_slice_drop", 0.05), "1/20 is within 5 pp"


def test_a_kept_limit_names_the_slices_on_which_it_says_nothing() -> None:
    told = verdict(sliced((3, 0, 0), (300, 1, 0), (19, 0, 0), (20, 0, 0)), "max_slice_drop", 0.05, "5 pp")
    assert told.outcome == "pass"
    assert told.sentence.endswith(
        "holds: at worst class 1 lost 1 of 300 examples and won 0 (0.333 pp); 2 of 4 slices have so few examples that "
        "a single one is more than 5 pp, so that nothing was lost there says nothing: class 0 (3), class 2 (19). "
        "(budgets.yaml:23)"
    )
    assert "says nothing" not in text(sliced((3, 0, 0), (300, 0, 0)), "max_slice_drop", 0.0), "no limit is that small"


def test_slices_of_a_metric_that_is_not_right_or_wrong() -> None:
    slices = Slices(("day", "night"), False, (300, 120), (0.004, 0.031))
    of = case(metric="m:loss", higher_is_better=False)
    told = verdict(replace(of, slices=slices), "max_slice_drop", 0.02)
    assert (told.outcome, told.measured) == ("fail", 0.031)
    assert "is broken: slice night dropped by 0.031 on 120 examples, 0.011 beyond the limit" in told.sentence


def test_a_slice_without_a_score_keeps_the_limit_from_holding_for_all() -> None:
    slices = Slices(("day", "night", "dusk"), False, (300, 120, 4), (0.004, 0.031, None))
    of = replace(case(metric="m:auroc"), slices=slices)
    held, broken = verdict(of, "max_slice_drop", 0.04), verdict(of, "max_slice_drop", 0.02)
    assert (held.outcome, broken.outcome) == ("inconclusive", "fail")
    for told in (held, broken):
        assert "; a slice has no score: slice dusk; give them examples on which the metric" in told.sentence


NO_SLICES = "no classes without targets"


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (answered(), "there are no slices: only a classifier with targets has classes to tell apart; name slices with"),
        (
            answered(variant=replace(measurement("r"), unmeasured={"slices": NO_SLICES})),
            f"({NO_SLICES}; name slices with `slices: package.module:function`)",
        ),
        (
            replace(case(metric="m:f1"), slices=Slices(("a", "b"), False, (2, 3), (None, None))),
            "m:f1 has no value on any of the 2 slices",
        ),
    ],
)
def test_without_slices_the_limit_is_broken_and_says_the_way_out(of: Case, why: str) -> None:
    told = verdict(of, "max_slice_drop", 1.0)
    assert (told.outcome, told.is_red) == ("not measured", True)
    assert why in told.sentence


def test_names_of_slices_stay_on_one_line_and_short() -> None:
    names = ("a\nb\x1b[31m\u202e", "x" * 500)
    told = verdict(sliced((10, 9, 0), (10, 8, 0), names=names), "max_slice_drop", 0.2).sentence
    assert told.isprintable()
    assert len(told) < 500


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
        original=replace(measurement(None, score=2.0), examples=400),
        variant=replace(measurement("r", score=2.5), examples=400),
    )
    return replace(of, interval=interval, no_interval=why, inference="population", **changes)


BOOTSTRAP = Interval(0.4, 0.62, "paired bootstrap", 2000, 7)


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


def sliced_population(*columns: tuple[int, int, int]) -> Case:
    return sliced(*columns, inference="population")


def test_in_the_population_each_slice_must_keep_the_limit_by_its_own_bound() -> None:
    """No change of N: z2 / (N + z2), which is 2.63 points of 100 and 0.67 of 400."""
    of = sliced_population((100, 0, 0), (400, 0, 0))
    assert text(of, "max_slice_drop", 0.027) == (
        "holds: at worst class 1 lost 0 of 400 examples and won 0 (0 pp); the highest bound is that of class 0, at "
        "most 2.63 pp in the population (95%)"
    )
    told = verdict(of, "max_slice_drop", 0.02)
    assert told.outcome == "inconclusive"
    assert (
        "and 1 of 2 slices may be beyond the limit, most of all class 0 with 100 examples, at most 2.63 pp in the "
        "population (95%): about 140 examples of class 0 would be needed" in told.sentence
    )
    assert verdict(of, "max_slice_drop", 0.006).sentence.count("2 of 2 slices") == 1


def test_a_broken_slice_shares_its_risk_with_all_slices() -> None:
    """Tango's lower bound of (40, 20, 1000) is 0.7426 points alone; among forty slices it is lower."""
    alone = sliced_population((1000, 40, 20))
    assert verdict(alone, "max_slice_drop", 0.0074).outcome == "fail"
    assert "at least 0.743 pp in the population (95%)" in verdict(alone, "max_slice_drop", 0.0074).sentence
    among = sliced_population((1000, 40, 20), *(39 * ((1000, 0, 0),)))
    assert verdict(among, "max_slice_drop", 0.0074).outcome == "inconclusive"
    collapsed = verdict(sliced_population((100, 50, 0), (100, 0, 0)), "max_slice_drop", 0.05)
    assert collapsed.outcome == "fail"
    assert "class 0 lost 50 of 100 examples and won 0 (50 pp), at least" in collapsed.sentence
    assert "in the population (95%, shared among 2 slices)" in collapsed.sentence


# --- variants that do not repeat themselves --------------------------------------------------------------------------


def varying(of: Case, score: float | None, flips: int | None, side: str = "variant") -> Case:
    """`of`, but this is what a second pass of one side gave."""
    measured = getattr(of, side)
    return replace(of, **{side: replace(measured, repeat=Repeat(measured.examples, score, flips))})


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
    assert (told.outcome, told.measured) == ("fail", pytest.approx(0.02))
    assert "0.01 pp beyond the limit; the variant answers differently" in told.sentence


def test_all_pairs_of_passes_count_where_both_sides_vary() -> None:
    """The original 90% or 91%, the variant 88% or 87.5%: 2 to 3.5 points."""
    of = varying(VARYING, 0.91, 6, side="original")
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


def test_the_worst_slice_moves_by_the_own_flips_at_most() -> None:
    """3 of 100 lost, and 2 answers that change by themselves: from 1 to 5 points in other passes."""
    of = varying(sliced((100, 3, 0), (300, 0, 0)), 0.9, 2)
    assert [verdict(of, "max_slice_drop", value).outcome for value in (0.05, 0.049, 0.01, 0.0099)] == [
        "pass",
        "inconclusive",
        "inconclusive",
        "fail",
    ]
    of = replace(of, metric="top-5")
    assert verdict(of, "max_slice_drop", 0.9).outcome == "inconclusive", "a rank may change below the first prediction"


def test_the_population_and_all_passes_must_agree() -> None:
    of = varying(in_population(1000, 5, score=0.9), 0.875, 30)
    assert verdict(varying(of, 0.895, 3), "max_accuracy_drop", 0.02).outcome == "pass"
    told = verdict(of, "max_accuracy_drop", 0.02)
    assert told.outcome == "inconclusive"
    assert "30 of 1,000 predictions changed" in told.sentence
