"""What a case comes to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_modelopt.results.base import Against, Loosening
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.json import dumps, loads
from pytest_modelopt.results.merging import merge
from pytest_modelopt.results.outcome import case_outcome, is_red, warnings
from pytest_modelopt.results.run_outcome import record_is_red, run_outcome
from pytest_modelopt.results.verdicts import Level, Limit, Outcome, Reason, Verdict
from tests.reporting.records_by_hand import case, record


def _case(*judged: tuple[Outcome, Level], unjudged: tuple[Level, ...] = (), error: CaseError | None = None) -> Case:
    verdicts = tuple(
        Verdict(Limit(f"limit{n}", 1.0, "1", level, "budgets.yaml", n), outcome, None, Reason("measured"))
        for n, (outcome, level) in enumerate(judged)
    )
    forgotten = tuple(Limit(f"forgotten{n}", 1.0, "1", level, "budgets.yaml", n) for n, level in enumerate(unjudged))
    limits = (*(verdict.limit for verdict in verdicts), *forgotten)
    return case("r", "m", limits=limits, verdicts=verdicts, error=error)


def test_a_case_without_limits_says_so() -> None:
    assert case_outcome(_case(), strict=False) == "no limits"


def test_kept_and_waived_limits_pass() -> None:
    assert case_outcome(_case(("pass", "error"), ("waived", "error")), strict=True) == "pass"


def test_an_error_is_worse_than_anything() -> None:
    case = _case(("fail", "error"), error=CaseError("load", "no such file"))
    assert case_outcome(case, strict=False) == "error"
    assert is_red(case, strict=False)


def test_a_broken_limit_fails() -> None:
    assert case_outcome(_case(("pass", "error"), ("fail", "error")), strict=False) == "fail"


def test_a_limit_that_was_not_measured_fails() -> None:
    assert case_outcome(_case(("not measured", "error")), strict=False) == "fail"


def test_a_limit_that_was_not_judged_fails() -> None:
    assert case_outcome(_case(("pass", "error"), unjudged=("error",)), strict=False) == "fail"
    assert case_outcome(_case(("pass", "error"), unjudged=("warn",)), strict=False) == "warn"


def test_inconclusive_is_red_only_under_strict() -> None:
    case = _case(("pass", "error"), ("inconclusive", "error"), ("fail", "warn"))
    assert case_outcome(case, strict=False) == "inconclusive"
    assert not is_red(case, strict=False)
    assert case_outcome(case, strict=True) == "fail"
    assert is_red(case, strict=True)


def test_a_limit_of_level_warn_never_makes_red() -> None:
    case = _case(("fail", "warn"), ("inconclusive", "warn"), ("not measured", "warn"), ("pass", "warn"))
    assert case_outcome(case, strict=True) == "warn"
    assert warnings(case) == 3


def test_a_record_is_red_where_one_case_is() -> None:
    good, bad = _case(("pass", "error")), _case(("fail", "error"))
    assert record_is_red(record(good, bad))
    assert not record_is_red(record(good, good))
    assert record_is_red(record(_case(("inconclusive", "error")), strict=True))


def test_a_planned_case_that_was_not_run_is_red() -> None:
    of = record(_case(("pass", "error")), planned=("other",), complete=False)
    assert run_outcome(of).never_ran == ("other",)
    assert run_outcome(replace(of, cases=(replace(of.cases[0], id="other#2"),))).never_ran == ("budgets.yaml::m/r",)
    assert record_is_red(of)


# --- what became looser ----------------------------------------------------------------------------------------------


AGAINST = Against("revision", "main", 40 * "0", 40 * "1", has_uncommitted=False)
LOOSER = Loosening("m/r", "max_size", "relaxed", "1 B", "2 B", "+100%", "budgets.yaml", 3)


@pytest.mark.parametrize(
    ("against", "is_red_where_forbidden"),
    [
        (AGAINST, False),
        (replace(AGAINST, notes=("dependencies changed",)), False),
        (replace(AGAINST, loosened=(LOOSER,)), True),
        (replace(AGAINST, removed=("m/other",)), True),
        (replace(AGAINST, unknown="the base's file cannot be read"), True),
        (None, True),
    ],
    ids=["the same", "a note", "loosened", "removed", "unknown", "no base"],
)
def test_what_became_looser_is_red_only_where_that_is_forbidden(
    against: Against | None, is_red_where_forbidden: bool
) -> None:
    told = replace(record(_case(("pass", "error"))), against=against)
    assert run_outcome(told).causes == ()
    forbidden = replace(told, no_loosening=True)
    assert run_outcome(forbidden).causes == (("loosened",) if is_red_where_forbidden else ())
    assert run_outcome(forbidden).word == ("FAILED" if is_red_where_forbidden else "passed")
    assert run_outcome(loads(dumps(forbidden))).causes == run_outcome(forbidden).causes
    other = replace(told, started="2026-11-24T03:00:01Z")
    both = merge([("one", forbidden), ("other", other)])
    assert record_is_red(both) == is_red_where_forbidden
    assert not record_is_red(merge([("one", told), ("other", other)]))
