"""The report in the terminal: it fits where it can, says how to go on, and cannot be taken over by what it tells."""

from __future__ import annotations

import re

import pytest

from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.measurement import Coverage, LayerCoverage
from tests.reporting.records_by_hand import broken, case, limit, realistic, record, verdict


def _text(told: list[tuple[str, dict[str, bool]]]) -> list[str]:
    return [text for text, _ in told]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_everything_fits_into_usual_terminals(width: int) -> None:
    told = _text(lines(realistic(), width, verbose=True))
    assert max(len(line) for line in told) <= width


def _tables(told: list[str]) -> list[list[str]]:
    """The header and the rows of each table, without their rule."""
    rules = [index for index, line in enumerate(told) if set(line.strip()) == {"-"}]
    return [[told[rule - 1], *told[rule + 1 : told.index("", rule)]] for rule in rules]


def test_a_table_stands_in_one_piece_where_that_fits_and_in_two_where_it_does_not() -> None:
    wide, narrow = (_tables(_text(lines(record(*realistic().cases[:2]), width))) for width in (130, 80))
    ((header, _, row, _),) = wide
    assert header.split() == ["verdict", "recipe", "memory", "size", "drop", "speedup"]
    assert re.split(r" {2,}", row.strip()) == [
        "✗ FAIL",
        "int8-dynamic",
        "✗ 3.41 of 3 MiB",
        "2 MiB",
        "0.28 of 1 pp",
        "1.42x",
    ]
    exact, timed = narrow
    assert exact[0].split() == ["verdict", "recipe", "memory", "size", "drop"]
    assert timed[0].split() == ["verdict", "recipe", "speedup"]
    assert exact[-1].strip() == "+ int8-dynamic", "a recipe over two lines"
    assert not [line for line in timed if "original" in line], "it has no figure there"


def test_the_first_line_is_the_verdict_and_the_counts() -> None:
    assert lines(realistic(), 150)[0] == (
        "modelopt: FAILED, PARTIAL: 6 of 7 cases ran. "
        "7 cases: 3 passed (1 with a warning), 1 failed, 1 in error, 1 inconclusive, 1 not run",
        {"red": True, "bold": True},
    )
    assert lines(realistic(), 150)[-1][0] == "modelopt: 1 timed limit; Example CPU (AVX512), torch 2.13.0"


def test_the_first_line_is_green_only_where_nothing_is_open() -> None:
    good = case(verdicts=(verdict(limit("max_memory", 1.0, "1 B"), "pass"),))
    undecided = case("x", verdicts=(verdict(limit("min_speedup", 1.0, "1x"), "inconclusive"),))
    assert lines(record(good), 100)[0][1] == {"green": True}
    assert lines(record(good, complete=False), 100)[0][1] == {"red": True, "bold": True}
    assert lines(record(good, undecided), 100)[0][1] == {"yellow": True}
    assert lines(record(good, planned=("missing",)), 100)[0][1] == {"red": True, "bold": True}


def test_what_is_red_stands_above_the_tables_and_its_row_is_red() -> None:
    told = lines(record(broken("int8-dynamic")), 200)
    sentence = (
        "FAIL digits-vit/int8-dynamic: max_memory 3 MiB is broken: 3.75 MiB measured, 25% more than the limit."
        " (budgets.yaml:23)"
    )
    assert told[1] == (sentence, {"red": True, "bold": True})
    assert told[2][0].startswith("     Next: look for a recipe with a smaller peak: pytest-modelopt explore")
    assert [markup for text, markup in told if text.startswith("  ✗ FAIL   int8-dynamic")] == [{"red": True}]


def test_what_is_told_elsewhere_has_its_row_only() -> None:
    """Under FAILURES pytest prints it; what is not red, and failures of the run, stand here only."""
    warned = broken("w", level="warn")
    told = record(broken("int8-dynamic"), warned, planned=("missing",))
    ids = {told.cases[0].id, warned.id}
    shown = _text(lines(told, 200, explained=ids))
    assert not [line for line in shown if line.startswith("FAIL digits-vit")]
    assert [line for line in shown if line.startswith("  ✗ FAIL   int8-dynamic")]
    assert [line for line in shown if line.startswith("WARN digits-vit/w: max_memory 3 MiB is broken")]
    assert [line for line in shown if line.startswith("FAIL 1 planned case was not run")]
    assert not [line for line in shown if line.startswith("Explained:")]


def test_one_line_says_where_all_red_cases_are_explained() -> None:
    """The heading of each case once; a code that no heading can be is none of ours."""
    failed = case("e", reference=None, error=CaseError("load", "no such file"))
    several = (broken("a"), broken("b"), failed, broken("w", level="warn"))
    shown = _text(lines(record(*several), 200))
    address = "Explained: https://pytest-modelopt.readthedocs.io/en/latest/troubleshooting/"
    assert [line for line in shown if line.startswith("Explained")] == [f"{address} (measured, error-load)"]
    assert shown.index(f"{address} (measured, error-load)") < shown.index("digits-vit")
    stranger = case("s", verdicts=(verdict(limit("max_memory", 1.0, "1 B"), "fail", 2.0, "see http://x"),))
    assert not [line for line in _text(lines(record(stranger), 200)) if line.startswith("Explained")]


def test_details_and_notes_about_models_are_shown_on_demand() -> None:
    brief, whole = (_text(lines(realistic(), 200, verbose=verbose)) for verbose in (False, True))
    assert "(-v: 1 note, coverage, intervals and flips)" in brief
    for part in ("was in training mode", "1.42x [1.38, 1.48]", "74.9% / 75%", "3 / 360"):
        assert not [line for line in brief if part in line], part
        assert [line for line in whole if part in line], part
    assert not [line for line in whole if line.startswith("(-v")]


def test_the_likely_cause_is_said_once_for_each_case() -> None:
    assert not [line for line in _text(lines(realistic(), 200)) if "changed 74.9%" in line]
    told = _text(lines(realistic(), 200, verbose=True))
    assert len([line for line in told if "int8-dynamic changed 74.9%" in line and "prune" not in line]) == 1


def test_the_likely_cause_stands_under_the_last_of_several_broken_limits() -> None:
    bounds = [limit(name, 1.0, "1 B") for name in ("max_memory", "max_size")]
    coverage = Coverage((LayerCoverage("a", "Linear", 4, 3),), ())
    twice = case(verdicts=tuple(verdict(bound, "fail", 2.0) for bound in bounds), coverage=coverage)
    told = _text(lines(record(twice, case("fine")), 200, verbose=True))
    shown = [line for line in told if line.startswith(("FAIL", "     ")) and "original" not in line]
    assert [line.partition(": pytest-modelopt")[0] for line in shown] == [
        "FAIL digits-vit/int8-dynamic: max_memory 1 B is broken: for a reason. (budgets.yaml:23)",
        "     Next: look for a recipe with a smaller peak",
        "FAIL digits-vit/int8-dynamic: max_size 1 B is broken: for a reason. (budgets.yaml:23)",
        "     Next: look for a recipe with smaller files",
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
    assert _text(told)[:3] == [
        "modelopt: NOTHING MEASURED. 0 cases: 0 passed, 0 failed",
        "FAIL nothing was measured, so no budget is known to hold: pytest's own output",
        "     says why",
    ]
    assert told[0][1] == {"red": True, "bold": True}
