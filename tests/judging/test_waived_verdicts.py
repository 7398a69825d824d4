"""Waivers in verdicts: what they make of a broken limit, and which ones of a record are needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.judging.waivers import waiver_uses
from pytest_modelopt.limits.catalogue import is_open
from pytest_modelopt.reporting.messages.waivers import format_waiver_use
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.outcome import case_outcome, is_red, warnings
from pytest_modelopt.results.verdicts import Limit, Waiver
from pytest_modelopt.statistics.samples import Samples
from tests.judging.judged import Judged
from tests.judging.judged import judged as judged_limit
from tests.reporting.records_by_hand import MIB, case, measurement, record, timing, variant_changed

WAIVER = Waiver("2027-01-31", "the new head is larger.", "budgets.yaml", 40, "@ada")


def limit(name: str, value: float, text: str = "L", waiver: Waiver | None = WAIVER) -> Limit:
    return Limit(name, value, text, "error", "budgets.yaml", 23, waiver)


def up_to(ceiling: float, text: str = "C") -> Waiver:
    return replace(WAIVER, ceiling=ceiling, ceiling_text=text)


def judged(of: Case, *limits: Limit) -> Case:
    return judge(replace(of, limits=limits), timed_limits=1)


def verdict(of: Case, only: Limit) -> Judged:
    return judged_limit(of, only, timed_limits=1)


CASE = case(variant=measurement("int8-dynamic", size=2 * MIB), timing=timing())
"""2 MiB of 4; the original's calls take 4 ms and the variant's 5 ms, so the speedup is 0.8, in three launches."""
AT_BASE = replace(CASE, base=Base("1a2b3c4d5e6f", "compared"))
"""Head is half as large as its base, and takes 1.25 times as long."""


def test_a_broken_limit_is_waived_and_the_sentence_says_until_when_why_who_and_what_was_found() -> None:
    told = verdict(CASE, limit("max_size", MIB, "1 MiB"))
    assert (told.outcome, told.is_red, told.measured) == ("waived", False, 2 * MIB)
    assert told.sentence == (
        "digits-vit/int8-dynamic: max_size 1 MiB is waived until 2027-01-31, owner @ada: the new head is larger. "
        "(budgets.yaml:40) It is broken: 2 MiB measured, 100% more than the limit. (budgets.yaml:23)"
    )


def test_a_kept_limit_passes_as_if_there_were_no_waiver() -> None:
    told = verdict(CASE, limit("max_size", 2 * MIB))
    assert told.outcome == "pass"
    assert told.sentence == verdict(CASE, limit("max_size", 2 * MIB, waiver=None)).sentence


def test_the_lack_of_a_figure_is_not_waived() -> None:
    told = verdict(variant_changed(CASE, size_bytes=None), limit("max_size", MIB))
    assert (told.outcome, told.is_red) == ("not measured", True)


@pytest.mark.parametrize(("ceiling", "outcome"), [(2 * MIB, "waived"), (2 * MIB - 1, "fail")])
def test_a_waiver_accepts_up_to_its_ceiling(ceiling: int, outcome: str) -> None:
    told = verdict(CASE, limit("max_size", MIB, "1 MiB", up_to(ceiling, "1.9 MiB")))
    assert (told.outcome, told.is_red) == (outcome, outcome == "fail")
    if outcome == "waived":
        assert " max_size 1 MiB is waived up to 1.9 MiB until 2027-01-31, owner" in told.sentence
    else:
        assert told.sentence == (
            "digits-vit/int8-dynamic: max_size 1 MiB is broken: 2 MiB measured, 100% more than the limit. "
            "(budgets.yaml:23) The ceiling 1.9 MiB of its waiver is broken, too: it is waived up to there only, until "
            "2027-01-31, owner @ada: the new head is larger. (budgets.yaml:40)"
        )


@pytest.mark.parametrize(
    ("of", "name", "value", "kept", "broken"),
    [
        (CASE, "min_speedup", 1.5, 0.7, 1.0),
        (CASE, "max_latency", 0.001, 0.006, 0.004),
        (AT_BASE, "max_slowdown", 0.01, 0.35, 0.15),
        (AT_BASE, "max_memory_growth", 0.0, 9.0, None),
        (CASE, "min_size_reduction", 0.9, 0.5, 0.51),
    ],
)
def test_it_holds_for_exact_and_timed_limits_against_the_original_and_the_base(
    of: Case, name: str, value: float, kept: float, broken: float | None
) -> None:
    grown = variant_changed(of, weights_bytes=8 * MIB) if name == "max_memory_growth" else of
    assert verdict(grown, limit(name, value, waiver=None)).outcome == "fail"
    assert verdict(grown, limit(name, value)).outcome == "waived"
    assert verdict(grown, limit(name, value, waiver=up_to(kept))).outcome == "waived"
    if broken is not None:
        assert verdict(grown, limit(name, value, waiver=up_to(broken))).outcome == "fail"


def test_an_undecided_limit_is_waived_unless_its_ceiling_is_broken() -> None:
    """From 0.767x to 0.845x: the limit is inside, and of the ceilings one below it, one inside, and one above."""
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=None)).outcome == "inconclusive"
    told = verdict(CASE, limit("min_speedup", 0.8))
    assert (told.outcome, "It is inconclusive: " in told.sentence) == ("waived", True)
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(0.76))).outcome == "waived"
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(0.78))).outcome == "waived"
    assert verdict(CASE, limit("min_speedup", 0.8, waiver=up_to(2.0))).outcome == "inconclusive"


def test_a_case_whose_limits_are_waived_is_not_red_even_under_strict() -> None:
    done = judged(CASE, limit("max_size", MIB), limit("min_speedup", 1.5))
    assert [each.outcome for each in done.verdicts] == ["waived", "waived"]
    assert case_outcome(done, strict=True) == "pass"
    assert not is_red(done, strict=True)
    assert warnings(done) == 0
    warned = judged(CASE, replace(limit("max_size", MIB), level="warn"))
    assert (warned.verdicts[0].outcome, warnings(warned)) == ("waived", 0)


@pytest.mark.parametrize(
    ("stated", "waiver", "goes_on"),
    [
        (1.5, None, False),
        (1.5, WAIVER, False),
        (1.5, up_to(0.5), False),
        (1.5, up_to(0.8), True),  # the ceiling is undecided
        (0.8, None, True),
        (0.8, WAIVER, True),
        (0.8, up_to(0.5), True),  # its ceiling is kept, and whether the limit itself is nobody knows yet
    ],
)
def test_a_waived_limit_is_timed_until_it_and_its_ceiling_are_decided(
    stated: float, waiver: Waiver | None, goes_on: bool
) -> None:
    assert CASE.timing is not None
    samples = Samples.of(CASE.timing.pairs)
    assert is_open([limit("min_speedup", stated, waiver=waiver)], samples, timed_limits=1) == goes_on


# --- which ones are needed -------------------------------------------------------------------------------------------


def test_a_record_tells_which_waivers_are_used_unused_exceeded_or_unknown() -> None:
    first = judged(
        CASE,
        limit("max_size", MIB, "1 MiB"),
        limit("max_memory", 100 * MIB, "100 MiB"),
        limit("min_size_reduction", 0.9, "90%", up_to(0.8, "80%")),
        limit("max_flips", 0.1, "10%"),
        limit("min_speedup", 9.0, waiver=None),
    )
    failed = judge(replace(case("low-rank", limits=(limit("max_size", 1),)), error=None, variant=None), timed_limits=0)
    told = waiver_uses(record(first, failed))
    assert [(each.case, each.limit.name, each.state, each.waiver) for each in told] == [
        ("digits-vit/int8-dynamic", "max_size", "used", WAIVER),
        ("digits-vit/int8-dynamic", "max_memory", "unused", WAIVER),
        ("digits-vit/int8-dynamic", "min_size_reduction", "exceeded", up_to(0.8, "80%")),
        ("digits-vit/int8-dynamic", "max_flips", "unknown", WAIVER),
        ("digits-vit/low-rank", "max_size", "unknown", WAIVER),
    ]
    assert format_waiver_use(told[1]) == (
        "The waiver of max_memory 100 MiB of digits-vit/int8-dynamic until 2027-01-31, owner @ada: the new head is "
        "larger. (budgets.yaml:40) The limit holds without it: remove it."
    )
    assert [format_waiver_use(each).rpartition(") ")[2] for each in told[::2]] == [
        "It is used.",
        "Its ceiling 80% is broken.",
        "Whether it is needed is not known: the limit was not judged.",
    ]


def test_a_waiver_that_one_of_several_machines_needs_is_used() -> None:
    here = judged(CASE, limit("max_size", MIB))
    there = judged(replace(CASE, machine=1, variant=measurement("int8-dynamic", size=MIB)), limit("max_size", MIB))
    assert [each.outcome for each in (*here.verdicts, *there.verdicts)] == ["waived", "pass"]
    for cases in ((here, there), (there, here)):
        assert [each.state for each in waiver_uses(record(*cases))] == ["used"]
    assert [each.state for each in waiver_uses(record(there, there))] == ["unused"]


def test_a_record_without_waivers_tells_none() -> None:
    assert waiver_uses(record(judged(CASE, limit("max_size", MIB, waiver=None)))) == ()
