"""Calibration with too little: said even where all limits hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_modelopt.record.answers import Slices
from pytest_modelopt.record.model import Case
from pytest_modelopt.record.observations import Calibration
from tests.doctor.cases_by_hand import only, rules, variant_with


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
