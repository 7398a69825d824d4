"""Calibration with too little: said even where all limits hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.results.answers import Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.observations import Calibration, Ranges
from tests.diagnosis.cases_by_hand import only, rules, variant_with


def calibrated(**changes: Any) -> Case:
    fine = Calibration(batches=4, examples=256, looked_at=256, classes=(0, 1, 2))
    return variant_with("int8-static", calibration=replace(fine, **changes))


def of_classes(case: Case, *names: str) -> Case:
    zeros = (0,) * len(names)
    return replace(case, slices=Slices(names, True, (100,) * len(names), (0.0,) * len(names), zeros, zeros))


def test_enough_is_not_mentioned() -> None:
    assert rules(calibrated()) == []
    assert rules(variant_with("int8-dynamic")) == []


def test_always_the_same() -> None:
    finding = only(calibrated(examples=1))
    assert (finding.rule, finding.explains, finding.is_note) == ("calibration-thin", ("score", "predictions"), True)
    assert finding.text.startswith("all 256 calibration examples are one and the same: ")


def test_few_examples_alone_are_no_fault_since_each_may_hold_hundreds_of_frames() -> None:
    assert rules(calibrated(examples=8, looked_at=8, batches=1)) == []
    assert rules(calibrated(examples=1, looked_at=1, batches=1)) == []


def test_examples_that_hold_one_value_each() -> None:
    told = only(calibrated(constant=256)).text
    assert told.startswith("each calibration example is one single value throughout: ")
    assert rules(calibrated(constant=255)) == []


def test_one_class_where_the_evaluation_data_has_several() -> None:
    told = only(calibrated(classes=(4,))).text
    assert told.startswith("all calibration examples have the target 4: ")
    one = variant_with("int8-static", calibration=Calibration(4, 256, 256, classes=(4,)), target_classes=1)
    assert rules(one) == []


def test_classes_that_never_came() -> None:
    finding = only(of_classes(calibrated(), "0", "1", "2", "3"))
    assert finding.text.startswith("no calibration example was of class 3:")
    assert rules(of_classes(calibrated(classes=(0, 1, 2, 3)), "0", "1", "2", "3")) == []
    assert rules(of_classes(calibrated(classes=None), "0", "1", "2", "3")) == []


def test_slices_of_the_projects_own_are_no_classes() -> None:
    by_name = of_classes(calibrated(), "night", "day")
    assert by_name.slices is not None
    assert rules(replace(by_name, slices=replace(by_name.slices, of_classes=False))) == []


# --- other numbers than are evaluated --------------------------------------------------------------------------------

SHIFTED = Ranges("0", (0.0, 1.0), (-2.0, 255.0), 360, 360)
NARROW = Ranges("image", (0.0, 255.0), (0.0, 1.0), 0, 360)


def lost(ranges: tuple[Ranges, ...], score: float = 0.9, recipe: str = "int8-static") -> Case:
    """The original scores 0.975."""
    of = variant_with(recipe, calibration=Calibration(4, 256, 256, ranges=ranges))
    assert of.variant is not None
    return replace(of, variant=replace(of.variant, score=score))


def test_evaluated_numbers_far_beyond_what_calibration_saw() -> None:
    finding = only(lost((SHIFTED,)))
    assert (finding.rule, finding.explains) == ("calibration-elsewhere", ("score", "predictions"))
    assert finding.text.startswith(
        "360 of 360 evaluated examples have numbers far beyond what calibration saw (inputs: -2 to 255 in the "
        "evaluated data and 0 to 1 in calibration), which are cut off"
    )
    assert rules(lost((replace(SHIFTED, outside=18),))) == ["calibration-elsewhere"]
    assert rules(lost((replace(SHIFTED, outside=17),))) == []


def test_evaluated_numbers_in_a_small_part_of_what_calibration_saw() -> None:
    text = only(lost((replace(SHIFTED, outside=0), NARROW))).text
    assert text.startswith(
        "the evaluated data takes 0.392% of the range that calibration saw (input `image`: 0 to 1 in the evaluated "
        "data and 0 to 255 in calibration), so int8 has few steps for it: "
    )
    assert rules(lost((replace(NARROW, evaluated=(0.0, 16.0)),))) == []


def test_where_nothing_was_lost_or_no_range_is_fixed_it_is_no_fault() -> None:
    assert rules(lost((SHIFTED,), score=0.975)) == []
    assert rules(lost((SHIFTED,), recipe="prune-structured(ratio=0.5)")) == ["untrained"]
    assert rules(lost((SHIFTED,), recipe="int8-dynamic(finetune='shop:train')")) == []
    assert rules(lost(())) == []
    assert rules(lost((replace(SHIFTED, seen=(1.0, 1.0)),))) == []
