"""Cases from pytest's reports of a test, phase by phase."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest

from pytest_modelopt.plugin.ended_tests import GatedTests, Phase, Report
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import case_from_data, case_to_data
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from pytest_modelopt.results.observations import Observations
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, timing, verdict

UNKNOWN = replace(case("int8-dynamic"), id="t", variant=None, reference=None, timing=None, verdicts=())
KEPT = limit("max_memory", 4 * MIB, "4 MiB")
MEASURED = replace(case("int8-dynamic", verdicts=(verdict(KEPT, "pass", MIB, ""),)), id="t")
BROKEN = replace(broken("int8-dynamic"), id="t")


def report(phase: Phase, outcome: str = "passed", *cases: Case, message: str = "", xfail: str | None = None) -> Report:
    return Report("t", phase, outcome, message, xfail, UNKNOWN, cases, strict=False)


LATER = report("teardown", "failed", message="a later failure")


def ended(*reports: Report) -> GatedTests:
    tests = GatedTests()
    for each in reports:
        tests.take(each)
    return tests


def test_an_assertion_after_measuring_is_an_error_that_keeps_the_figures() -> None:
    (told,) = ended(report("setup"), report("call", "failed", MEASURED, message="assert 0"), LATER).cases
    assert told.variant == MEASURED.variant
    assert told.error is not None
    assert (told.error.stage, told.error.message, told.verdicts) == ("test", "assert 0", ())


def test_a_broken_budget_is_no_error_of_its_test() -> None:
    assert ended(report("setup"), report("call", "failed", BROKEN, message="max_memory is broken")).cases == [BROKEN]


@pytest.mark.parametrize("first", ["failed", "rerun"])
def test_another_attempt_starts_afresh(first: str) -> None:
    attempts = (report("setup"), report("call", first, message="x"), report("teardown"), report("setup"))
    assert ended(*attempts, report("call", "passed", MEASURED), report("teardown")).cases == [MEASURED]


def test_what_fails_in_its_tear_down_is_in_error() -> None:
    (told,) = ended(
        report("setup"), report("call", "passed", MEASURED), report("teardown", "failed", message="x")
    ).cases
    assert told.error is not None
    assert told.error.message == "in its tear-down: x"


def test_a_test_that_was_expected_to_fail_and_fails_in_its_tear_down_is_in_error() -> None:
    reports = (report("setup"), report("call", "skipped", MEASURED, xfail="slow"))
    (told,) = ended(*reports, report("teardown", "failed", message="x")).cases
    assert told.expected is None
    assert told.error is not None


def test_skipped_and_idle_tests_leave_no_case() -> None:
    skipped, idle = ended(report("setup", "skipped")), ended(report("setup"), report("call"), report("teardown"))
    assert (skipped.cases, skipped.skipped, skipped.idle) == ([], frozenset({"t"}), frozenset())
    assert (idle.cases, idle.skipped, idle.idle) == ([], frozenset(), frozenset({"t"}))


def test_the_original_of_many_cases_is_kept_once() -> None:
    """As each report brings it: a copy, which pytest-xdist has carried. Another measurement stays another one."""
    cases = [replace(case(recipe), id=recipe) for recipe in ("bf16", "fp16", "low-rank", "int8-dynamic")]
    assert cases[0].reference is not None
    cases[3] = replace(cases[3], reference=replace(cases[0].reference, size_bytes=1))
    tests = GatedTests()
    for each in cases:
        carried = case_from_data(case_to_data(each))
        tests.take(replace(report("setup"), test=each.id))
        tests.take(replace(report("call", "passed", carried), test=each.id))
    assert tests.cases == cases
    first, second, third, other = (told.reference for told in tests.cases)
    assert first is second is third
    assert other is not first


def test_a_further_case_takes_little_memory_to_the_end() -> None:
    """Of 20 pairs and 20 layers, as its report brings it. Objects with a `__dict__` each would take twice as much."""
    layers = tuple(LayerCoverage(f"blocks.{number}", "Linear", 3 * MIB, 3 * MIB, 750_000, 0) for number in range(20))
    variant = measurement("int8-dynamic", observations=Observations())
    sample = replace(MEASURED, variant=variant, coverage=Coverage(layers, ()), timing=timing(20))
    held_bytes(sample, 2)  # what is made once
    assert (held_bytes(sample, 60) - held_bytes(sample, 30)) / 30 < 16 * 1024


def held_bytes(sample: Case, count: int) -> int:
    """What the record of so many cases like `sample` takes."""
    tests, carried = GatedTests(), case_to_data(sample)
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        tests.take(replace(report("setup"), test=f"t{number}"))
        measured = replace(case_from_data(carried), id=f"t{number}")
        tests.take(replace(report("call", "passed", measured), test=f"t{number}"))
    del measured
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(tests.cases) == count
    return held
