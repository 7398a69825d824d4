"""Waivers: which let something pass, which are not needed any more, and which do not help."""

from __future__ import annotations

from dataclasses import replace

import pytest
from against_by_hand import WAIVER, waived
from records_by_hand import MIB, case, limit, record

from pytest_modelopt.report.waivers import waived_limits


@pytest.mark.parametrize(
    ("outcome", "is_used", "is_unused"),
    [
        ("waived", True, False),
        ("pass", False, True),
        ("fail", False, False),
        ("not measured", False, False),
    ],
)
def test_a_waiver_is_used_where_a_limit_needs_it(outcome: str, is_used: bool, is_unused: bool) -> None:
    (told,) = waived_limits(record(waived(outcome)))
    assert (told.case, told.limit.name, told.waiver) == ("digits-vit/int8-dynamic", "max_memory", WAIVER)
    assert (told.is_used, told.is_unused) == (is_used, is_unused)


def test_one_that_does_not_help_says_so() -> None:
    (told,) = waived_limits(record(waived("fail")))
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_memory 3 MiB is red in spite of its waiver until 2027-01-31, up to 4 MiB by kai: "
        "oneDNN 3.12 regression. (budgets.yaml:40)"
    )


def test_a_limit_that_nobody_judged_says_nothing_of_its_waiver() -> None:
    bound = replace(limit("max_memory", 3 * MIB, "3 MiB"), waiver=WAIVER)
    (told,) = waived_limits(record(case(limits=(bound,))))
    assert (told.is_used, told.is_unused) == (False, False)


def test_a_waiver_that_one_of_two_machines_needs_is_used() -> None:
    (told,) = waived_limits(record(waived("pass"), replace(waived(), machine=1)))
    assert (told.is_used, told.is_unused) == (True, False)


def test_owner_and_ceiling_are_left_out_where_there_are_none() -> None:
    made = waived()
    bound = replace(made.limits[0], waiver=replace(WAIVER, owner="", ceiling_text="", reason="why"))
    made = replace(made, limits=(bound,), verdicts=(replace(made.verdicts[0], limit=bound),))
    (told,) = waived_limits(record(made))
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_memory 3 MiB is waived until 2027-01-31: why. (budgets.yaml:40)"
    )
    assert waived_limits(record(case())) == []
