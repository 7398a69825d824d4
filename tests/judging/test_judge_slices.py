"""Verdicts on slices: the worst one is named with its size, and one that is too small to say anything says that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.slices import beyond, slice_rows
from pytest_modelopt.results.answers import Inference, Slices
from pytest_modelopt.results.case import Case
from tests.judging.answers_by_hand import answered, classes, sliced, text, varying, verdict
from tests.reporting.records_by_hand import case, limit, measurement

THREE = sliced((200, 1, 0), (205, 0, 2), (45, 4, 1))


def test_the_worst_slice_is_named_with_its_size_and_both_counts() -> None:
    """4 lost and 1 won of 45 are 3/45, which is 6.67 points."""
    told = verdict(THREE, "max_slice_drop", 0.05, "5 pp")
    assert told.outcome == "fail"
    assert told.measured == pytest.approx(3 / 45)
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_slice_drop 5 pp is broken: class 2 lost 4 of 45 examples and won 1 (6.67 pp), "
        "1.67 pp beyond the limit. (budgets.yaml:23)"
    )
    assert text(THREE, "max_slice_drop", 0.07) == "holds: at worst class 2 lost 4 of 45 examples and won 1 (6.67 pp)"


@pytest.mark.parametrize(("value", "outcome"), [(0.075, "pass"), (0.0749, "fail")])
def test_a_slice_exactly_at_the_limit_holds_whatever_floats_make_of_it(value: float, outcome: str) -> None:
    assert verdict(sliced((40, 3, 0), (60, 0, 0)), "max_slice_drop", value).outcome == outcome


def test_a_slice_at_the_limit_is_none_of_those_beyond_it() -> None:
    rows = slice_rows(classes((40, 3, 0), (60, 6, 0)))
    assert [row.name for row in beyond(rows, limit("max_slice_drop", 0.075, "7.5 pp"))] == ["1"]


@pytest.mark.parametrize(
    ("inference", "value", "is_said"), [("set", 0.02, True), ("set", 0.025, False), ("population", 0.02, False)]
)
def test_that_one_example_is_more_than_the_limit_is_said_of_these_examples(
    inference: Inference, value: float, is_said: bool
) -> None:
    of = sliced((40, 0, 0), (60, 0, 0), inference=inference)
    assert (LIMITS["max_slice_drop"].note(of, limit("max_slice_drop", value, "L")) is not None) == is_said


def test_a_gain_on_every_slice_is_a_drop_below_nothing() -> None:
    told = verdict(sliced((40, 0, 3), (60, 0, 3)), "max_slice_drop", 0.0)
    assert told.outcome == "pass"
    assert told.measured == pytest.approx(-0.05)


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
        "33.3 pp, more than the limit, so a single wrong answer breaks it: give the slice at least 20 examples"
        in told.sentence
    )
    many = text(sliced((46, 32, 0), (300, 0, 0)), "max_slice_drop", 0.02)
    assert "class 0 lost 32 of 46 examples" in many
    assert "a single one" not in many, "so many say more than that one is 2.17 pp"
    assert "a single one" not in text(sliced((20, 2, 0), (300, 0, 0)), "max_slice_drop", 0.05), "1/20 is within 5 pp"


def test_a_kept_limit_names_the_slices_on_which_it_says_nothing() -> None:
    told = verdict(sliced((3, 0, 0), (300, 1, 0), (19, 0, 0), (20, 0, 0)), "max_slice_drop", 0.05, "5 pp")
    assert told.outcome == "pass"
    assert told.sentence.endswith(
        "holds: at worst class 1 lost 1 of 300 examples and won 0 (0.333 pp); 2 of 4 slices have so few examples that "
        "a single one is more than 5 pp, so a drop of 0 there proves nothing: class 0 (3), class 2 (19). "
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


def test_a_drop_of_a_metric_that_nobody_knows_is_told_in_the_unit_of_its_limit() -> None:
    of = replace(THREE, metric="m:score", agreement=None, slices=Slices(("night",), False, (10,), (0.034,), None, None))
    for stated, told in [
        ("2 pp", "slice night dropped by 3.4 pp on 10 examples, 1.4 pp beyond the limit"),
        ("0.02", "slice night dropped by 0.034 on 10 examples, 0.014 beyond the limit"),
    ]:
        assert told in verdict(of, "max_slice_drop", 0.02, stated).sentence


def test_the_drop_of_the_whole_score_is_told_in_the_unit_of_its_limit() -> None:
    of = case(metric="m:score", reference=measurement(None, score=0.9), variant=measurement("r", score=0.866))
    for stated, told in [
        ("2 pp", "3.4 pp measured, 1.4 pp beyond the limit"),
        ("0.02", "0.034 measured, 0.014 beyond"),
    ]:
        assert told in verdict(of, "max_accuracy_drop", 0.02, stated).sentence
    assert "86.6% measured, 3.4 pp beyond the limit" in verdict(of, "min_accuracy", 0.9, "90%").sentence
