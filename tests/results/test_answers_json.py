"""Answers in a record: columns and counts that cannot be are refused, so that no record can break a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.results.answers import Agreement, Changed, Interval, Repeat, Slices
from pytest_modelopt.results.json import RecordError, case_from_data, case_to_data, dumps, loads
from tests.reporting.records_by_hand import case, measurement, record

ANSWERED = replace(
    case(
        reference=replace(measurement(None), repeat=Repeat(360, 0.9, 4)),
        agreement=Agreement(360, 2, 1, 3, Changed((1, 5, 9), (0, 3, 3), (0, 3, 4), (1, 4, 3))),
    ),
    slices=Slices(("0", "3"), True, (200, 160), (0.005, 0.0), (1, 1), (0, 1)),
    interval=Interval(-0.1, 0.2),
    inference="population",
)


def test_answers_are_the_same_after_writing_and_reading() -> None:
    assert loads(dumps(record(ANSWERED))).cases == (ANSWERED,)
    assert case_from_data(case_to_data(ANSWERED)) == ANSWERED


def test_a_column_is_one_line_of_the_file() -> None:
    assert '"index": [1, 5, 9],\n' in dumps(record(ANSWERED))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["agreement"].update(examples=0), r"agreement\.examples: must be at least 1, not 0"),
        (lambda c: c["agreement"].update(flips=361), r"agreement\.flips: must be from 0 to 360, not 361"),
        (
            lambda c: c["agreement"].update(right_to_wrong=-1),
            r"agreement\.right_to_wrong: must be from 0 to 360, not -1",
        ),
        (lambda c: c["agreement"].update(right_to_wrong=360), r"agreement: right_to_wrong and wrong_to_right are more"),
        (lambda c: c["agreement"]["changed"]["after"].pop(), r"agreement\.changed: the columns must be equally long"),
        (lambda c: c["agreement"]["changed"]["target"].pop(), r"agreement\.changed: the columns must be equally long"),
        (lambda c: c["agreement"]["changed"].update(index=[-1, 2, 3]), r"agreement\.changed\.index: .* least 0"),
        (
            lambda c: c["agreement"].update(
                changed=dict.fromkeys(("index", "target", "before", "after"), [0] * 10_001)
            ),
            r"agreement\.changed: must have at most 10000 entries, not 10001",
        ),
        (lambda c: c["slices"]["names"].pop(), r"slices: the columns must be equally long"),
        (lambda c: c["slices"]["wrong_to_right"].pop(), r"slices: the columns must be equally long"),
        (lambda c: c["slices"].update(wrong_to_right=None), r"slices: right_to_wrong and wrong_to_right must be there"),
        (lambda c: c["slices"].update(examples=[0, 360]), r"slices\.examples: .* least 1"),
        (
            lambda c: c["slices"].update(right_to_wrong=[1, 160]),
            r"slices: 160 lost and 1 won of 160 examples cannot be",
        ),
        (lambda c: c["slices"].update(wrong_to_right=[-1, 1]), r"slices: 1 lost and -1 won of 200 examples cannot be"),
        (
            lambda c: c["reference"]["repeat"].update(flips=361),
            r"reference\.repeat\.flips: must be from 0 to 360, not 361",
        ),
        (lambda c: c["reference"]["repeat"].update(examples=0), r"reference\.repeat\.examples: must be at least 1"),
        (lambda c: c.update(inference="sets"), r"inference: must be 'set' or 'population', not \"sets\""),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(change: Change, message: str) -> None:
    data = json.loads(dumps(record(case(), ANSWERED)))
    change(data["cases"][1])
    with pytest.raises(RecordError, match=rf"^cases\[1\]\.{message}"):
        loads(json.dumps(data))
    with pytest.raises(RecordError, match=rf"^{message}"):
        case_from_data(data["cases"][1])
