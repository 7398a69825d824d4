"""The report in the terminal: it fits where it can, says how to go on, and cannot be taken over by what it tells."""

from __future__ import annotations

import pytest

from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from tests.reporting.records_by_hand import broken, case, limit, realistic, record, verdict


def _text(told: list[tuple[str, dict[str, bool]]]) -> list[str]:
    return [text for text, _ in told]


@pytest.mark.parametrize("width", [100, 120, 160])
def test_tables_and_sentences_fit_into_usual_terminals(width: int) -> None:
    *body, closing = _text(lines(realistic(), width))
    assert max(len(line) for line in body) <= width
    assert closing.startswith("modelopt: ")


def test_a_wide_table_has_one_line_for_each_variant() -> None:
    told = _text(lines(realistic(), 170))
    (row,) = [line for line in told if line.startswith("  int8-dynamic ")]
    assert row.split("  ")[1] == "int8-dynamic"
    assert "3.41 MiB (-57.4%)" in row
    assert "3.7 ms -> 2.6 ms" in row
    assert row.endswith("FAIL")


def test_what_a_narrow_terminal_leaves_out_is_said() -> None:
    assert not [line for line in _text(lines(realistic(), 140)) if "left out" in line]
    assert not [line for line in _text(lines(realistic(), 120)) if "left out" in line]
    assert [
        line
        for line in _text(lines(realistic(), 100))
        if "left out, as the terminal is narrow: changed and flips)" in line
    ]
    narrow = _text(lines(realistic(), 80))
    assert [line for line in narrow if "left out, as the terminal is narrow: changed and size and flips" in line]
    assert any("(-57.4%)" in line for line in narrow)
    assert any("-> 2.6 ms  [1.38, 1.48]" in line for line in narrow), "both latencies, and the interval in one line"


def test_the_closing_line_counts_everything() -> None:
    assert lines(realistic(), 100)[-1] == (
        "modelopt: FAILED, PARTIAL: 6 of 7 cases ran; "
        "7 cases: 3 passed (1 with a warning), 1 failed, 1 in error, 1 inconclusive, 1 not run; "
        "1 timed limit; Example CPU (AVX512), torch 2.13.0",
        {"red": True, "bold": True},
    )


def test_the_closing_line_is_green_only_where_nothing_is_open() -> None:
    good = case(verdicts=(verdict(limit("max_memory", 1.0, "1 B"), "pass"),))
    undecided = case("x", verdicts=(verdict(limit("min_speedup", 1.0, "1x"), "inconclusive"),))
    assert lines(record(good), 100)[-1][1] == {"green": True}
    assert lines(record(good, complete=False), 100)[-1][1] == {"red": True, "bold": True}
    assert lines(record(good, undecided), 100)[-1][1] == {"yellow": True}
    assert lines(record(good, planned=("missing",)), 100)[-1][1] == {"red": True, "bold": True}


def test_what_failed_is_red_and_stands_with_its_sentence() -> None:
    told = lines(record(broken("int8-dynamic")), 200)
    assert [markup for text, markup in told if text.startswith("  int8-dynamic")] == [{"red": True}]
    assert (
        "FAIL digits-vit/int8-dynamic: max_memory 3 MiB is broken: 3.75 MiB measured, 25% more than the limit."
        " (budgets.yaml:23)",
        {"red": True, "bold": True},
    ) in told


def test_the_likely_cause_is_said_once_for_each_case() -> None:
    told = _text(lines(realistic(), 200))
    assert len([line for line in told if "int8-dynamic changed 74.9%" in line and "prune" not in line]) == 1


def test_the_likely_cause_stands_under_the_last_of_several_broken_limits() -> None:
    bounds = [limit(name, 1.0, "1 B") for name in ("max_memory", "max_size")]
    coverage = Coverage((LayerCoverage("a", "Linear", 4, 3),), ())
    twice = case(verdicts=tuple(verdict(bound, "fail", 2.0) for bound in bounds), coverage=coverage)
    told = _text(lines(record(twice, case("fine")), 200))
    assert [line for line in told if line.startswith(("FAIL", "    "))] == [
        "FAIL digits-vit/int8-dynamic: max_memory 1 B is broken: for a reason. (budgets.yaml:23)",
        "FAIL digits-vit/int8-dynamic: max_size 1 B is broken: for a reason. (budgets.yaml:23)",
        "     int8-dynamic changed 75% of the weight bytes; changed in part: 1 Linear (1 B)",
    ]


def test_only_the_end_of_a_long_output_is_shown() -> None:
    output = "\n".join(f"line {n}" for n in range(40))
    told = _text(lines(record(case(error=CaseError("timing", "died", output))), 100))
    assert "     the worker's last output (25 more lines in the record):" in told
    assert [line for line in told if line.startswith("     | ")] == [f"     | line {n}" for n in range(25, 40)]


def test_nothing_told_can_be_a_command_to_the_ci_system_or_the_terminal() -> None:
    evil = "::error::x ##[add-mask]y\n::set-env name=A::b\n\x1b]0;title\x07\x1b[2Jz " + "w" * 60 + " ::stop-commands::t"
    told = record(
        case("r", model="::error::m", error=CaseError("load", evil, evil)),
        case("::warning::r", verdicts=(verdict(limit("max_size", 1.0, "1 B"), "fail", 2.0, evil),)),
    )
    for width in (60, 80, 200):
        for text in _text(lines(told, width)):
            assert not text.lstrip().startswith("::")
            assert "##[" not in text
            assert text.isprintable()


def test_an_empty_record_is_red_and_says_why() -> None:
    told = lines(record(), 80)
    assert _text(told)[:2] == [
        "modelopt: NOTHING MEASURED",
        "FAIL nothing was measured, so nothing is known of any budget",
    ]
    assert told[-1][1] == {"red": True, "bold": True}
