"""The report for a pull request: what it loosened, changed and broke stands in the open, all else is folded away."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pytest_modelopt.reporting.base_summary import format_compared, format_loosened
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.base import Against
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Finding
from tests.reporting.against_by_hand import AGAINST, BASE, GREW, HEAD, LOOSENED, SLOWER, against, pull_request, waived
from tests.reporting.records_by_hand import MIB, broken, case, limit, measurement, record, verdict

OK = verdict(limit("max_memory", 8 * MIB, "8 MiB"), "pass", 2 * MIB)


def _open(markdown: str) -> str:
    """What a reader sees before opening anything."""
    return re.sub(r"<details>.*?\n</details>", "FOLDED", markdown, flags=re.DOTALL)


def _rows(markdown: str) -> list[str]:
    """The recipes of all table rows, without headers."""
    cells = [line.split("|")[2].strip() for line in markdown.split("\n") if line.startswith("|")]
    return [cell for cell in cells if cell != "recipe" and not cell.startswith(":-")]


# --- the first lines -------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_then_what_was_compared() -> None:
    first, _, second = render(pull_request(case(verdicts=(OK,)), GREW, against("x", status="new"))).split("\n")[:3]
    assert first == "**Model budgets: FAILED.** 3 cases: 1 passed, 1 failed, 1 new."
    assert second == "Head 1a2b3c4d5e6f against base 0f1e2d3c4b5a (merge-base:origin/main)."


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (AGAINST, "head 1a2b3c4d5e6f against base 0f1e2d3c4b5a (merge-base:origin/main)"),
        (
            replace(AGAINST, has_uncommitted=True, asked=BASE[:8]),
            "head 1a2b3c4d5e6f with uncommitted changes against base 0f1e2d3c4b5a",
        ),
        (replace(AGAINST, head=None, asked="v1.0"), "head against base 0f1e2d3c4b5a (v1.0)"),
        (
            Against("record", "saved.json", "2026-11-24T03:00:00+00:00", HEAD, False),
            "head 1a2b3c4d5e6f against the saved record saved.json, started 2026-11-24T03:00:00+00:00",
        ),
    ],
)
def test_revisions_are_short_and_the_base_is_as_it_was_asked_for(of: Against, told: str) -> None:
    assert format_compared(of) == told


# --- what was loosened -----------------------------------------------------------------------------------------------


def test_loosened_limits_stand_above_everything_that_was_measured() -> None:
    told = replace(
        AGAINST,
        loosened=(LOOSENED, replace(LOOSENED, limit="max_size", kind="warn", new="3 MiB (warn)", by="", line=13)),
        removed=("digits-vit/bf16",),
    )
    markdown = render(pull_request(GREW, told=told))
    assert "#### 2 limits are less strict than at the base\n" in markdown
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.split("\n") if "max_" in line]
    assert rows[:2] == [
        ["digits-vit/int8-dynamic", "max_memory", "relaxed", "3 MiB", "4 MiB", "&#43;33%", "budgets.yaml:12"],
        ["digits-vit/int8-dynamic", "max_size", "only warns now", "3 MiB", "3 MiB (warn)", "", "budgets.yaml:13"],
    ]
    order = ["Model budgets: FAILED", "are less strict", "REMOVED 1 case that the base has: digits-vit/bf16", "\n### "]
    assert [markdown.index(text) for text in order] == sorted(markdown.index(text) for text in order)
    assert "#### 1 limit is less strict" in render(pull_request(told=replace(AGAINST, loosened=(LOOSENED,))))


def test_of_many_loosened_limits_the_first_are_shown_and_the_rest_is_counted() -> None:
    told = replace(AGAINST, loosened=tuple(replace(LOOSENED, line=line) for line in range(53)))
    markdown = render(pull_request(told=told))
    assert markdown.count("| budgets.yaml:") == 50
    assert "and 3 more in the record" in markdown


def test_a_loosened_limit_in_one_line() -> None:
    assert (
        format_loosened(LOOSENED)
        == "digits-vit/int8-dynamic: max_memory 3 MiB -> 4 MiB (relaxed, +33%) (budgets.yaml:12)"
    )
    removed = replace(LOOSENED, kind="removed", new="removed", by="")
    assert format_loosened(removed) == "digits-vit/int8-dynamic: max_memory 3 MiB -> removed (budgets.yaml:12)"


# --- what changed ----------------------------------------------------------------------------------------------------


def test_a_change_of_nothing_is_one_sentence_and_no_table_in_the_open() -> None:
    markdown = render(pull_request(case(verdicts=(OK,)), against(ORIGINAL), against()))
    seen = _open(markdown)
    assert _rows(seen) == []
    assert (
        "Nothing changed: 2 variants were compared with the base, and their memory, size, score and answers are the "
        "same; no timing shows that one became slower or faster." in seen
    )
    assert _rows(markdown) == [
        *("original", "int8-dynamic", "int8-dynamic"),  # a table and its details, in which the original has no row
        *(3 * ["original", "int8-dynamic"]),  # head against its base, with details of exact and of timed figures
    ]


def test_of_what_the_base_lacks_it_is_not_said_that_it_is_the_same() -> None:
    bare = against(before=measurement(None, score=None), agreement=None, timed=None)
    markdown = render(pull_request(bare))
    assert "Nothing changed: 1 variant was compared with the base, and its memory and size are the same." in markdown
    assert "slower" not in markdown
    markdown = render(pull_request(bare, against("b")))
    assert "their memory, size, score and answers are the same" in markdown
    assert "Not compared for every variant: score, answers, latency." in markdown


def test_without_any_base_nothing_was_compared() -> None:
    assert "Nothing was compared with the base." in render(pull_request(case(), against(status="failed")))


def test_only_changed_or_failing_rows_stand_in_the_open() -> None:
    bound = limit("max_memory", 8 * MIB, "8 MiB")
    told = pull_request(
        case("fine", verdicts=(OK,)),
        broken("broken"),
        case("undecided", verdicts=(verdict(bound, "inconclusive"),)),
        case("warned", verdicts=(verdict(replace(bound, level="warn"), "fail", 9 * MIB, "the warning"),)),
        against("same"),
        against("slower", timed=SLOWER),
        against("new", status="new"),
        GREW,
    )
    markdown = render(told)
    assert _rows(_open(markdown)) == ["original", "broken", "undecided", "slower", "new", "int8-dynamic"]
    assert "Nothing changed" not in markdown
    assert "the warning" not in _open(markdown)
    assert "the warning" in markdown
    folded = [part.split("</details>")[0] for part in markdown.split("<details><summary>")[1:]]
    tables = [part for part in folded if "cases<" in part]
    assert _rows(tables[0]) == ["original", "fine", "broken", "undecided", "warned"]
    assert _rows(tables[1]) == ["same", "slower", "new", "int8-dynamic"]
    assert tables[0].startswith("digits-vit: all 4 cases<")
    assert tables[1].startswith("digits-vit against 0f1e2d3c4b5a: all 4 cases<")


def test_a_failing_case_has_its_sentence_and_what_the_doctor_found_in_the_open_once() -> None:
    found = Finding("the base was not compiled, head is", {}, ("size",))
    markdown = render(pull_request(replace(GREW, findings=(found,))))
    seen = _open(markdown)
    assert "**FAIL** digits-vit/int8-dynamic: max_size_growth 2% is broken: 12.5% more than at 0f1e2d3c4b5a" in seen
    assert "- the base was not compiled, head is" in seen
    assert markdown.count("max_size_growth 2% is broken") == 1


def test_red_tables_come_before_those_that_only_changed() -> None:
    markdown = render(pull_request(against("a", "first", timed=SLOWER), replace(GREW, model="second")))
    seen = _open(markdown)
    assert seen.index("### second against") < seen.index("### first against")


def test_what_failed_is_kept_longest() -> None:
    told = pull_request(*(case(f"r{n}", "fine") for n in range(400)), GREW, told=replace(AGAINST, loosened=(LOOSENED,)))
    markdown = render(told, 6_000)
    assert len(markdown.encode()) <= 6_000
    assert "max_size_growth 2% is broken" in markdown
    assert "less strict than at the base" in markdown
    assert "Left out to keep this report below 5 KiB: the table of fine" in markdown
    assert markdown.count("<details>") == markdown.count("</details>")


# --- all else --------------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_comparison_stands_in_the_open_and_notes_about_models_do_not() -> None:
    told = replace(AGAINST, notes=("dependencies changed",))
    noted = against(notes=("the data changed",), after=measurement("int8-dynamic", notes=("was in training mode",)))
    markdown = render(pull_request(noted, replace(noted, recipe="b"), told=told))
    seen = _open(markdown)
    assert "- dependencies changed\n- digits-vit against 0f1e2d3c4b5a (int8-dynamic, b): the data changed\n" in seen
    assert "was in training mode" not in seen
    assert "- digits-vit (int8-dynamic): was in training mode" in markdown
    assert "Example CPU" not in seen
    assert "Example CPU" in markdown


def test_what_was_not_run_is_said_in_the_open() -> None:
    told = replace(pull_request(against()), planned=("a::b",))
    assert "**FAIL** 1 planned case was not run: a::b" in _open(render(told))


def test_waivers_are_listed_the_used_and_the_unused() -> None:
    seen = _open(render(pull_request(waived(), against())))
    assert (
        "- The waiver of max_memory 3 MiB of digits-vit/int8-dynamic until 2027-01-31, owner kai: oneDNN 3.12 "
        "regression. (budgets.yaml:40) It is used." in seen
    )
    seen = _open(render(pull_request(waived("pass"), against())))
    assert (
        "- The waiver of max_memory 3 MiB of digits-vit/int8-dynamic until 2027-01-31, owner kai: oneDNN 3.12 "
        "regression. (budgets.yaml:40) The limit holds without it: remove it." in seen
    )
    assert "Waivers" not in render(pull_request(waived("fail"), against()))


def test_a_record_without_a_base_has_the_ordinary_report() -> None:
    told: Record = record(broken("int8-dynamic"))
    assert "against" not in render(told)
    assert "### digits-vit\n" in render(told)


# --- the terminal ----------------------------------------------------------------------------------------------------


def test_the_terminal_says_first_what_was_compared_and_loosened() -> None:
    told = replace(AGAINST, loosened=(LOOSENED,), removed=tuple(f"m/r{n}" for n in range(12)))
    texts = [text for text, _ in lines(pull_request(GREW, told=told), 200)]
    assert texts[:4] == [
        "modelopt: FAILED. 1 case: 0 passed, 1 failed",
        "head 1a2b3c4d5e6f against base 0f1e2d3c4b5a (merge-base:origin/main)",
        "LOOSENED digits-vit/int8-dynamic: max_memory 3 MiB -> 4 MiB (relaxed, +33%) (budgets.yaml:12)",
        f"REMOVED 12 cases that the base has: {', '.join(f'm/r{n}' for n in range(10))} and 2 more",
    ]
    assert texts[4].startswith("FAIL digits-vit/int8-dynamic: max_size_growth 2% is broken: 12.5% more than")
    assert texts.index("digits-vit against 0f1e2d3c4b5a") > 4


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_against_a_base_fit_into_usual_terminals(width: int) -> None:
    told = pull_request(against(ORIGINAL), GREW, against("x" * 20, timed=SLOWER))
    texts = [text for text, _ in lines(told, width, verbose=True)]
    assert max(map(len, texts)) <= width
    assert any("1.00 -> 1.12 MiB" in text for text in texts)
    assert any("✗ 12.5 of 2%" in text for text in texts)


def test_the_terminal_lists_unused_waivers_and_tells_used_ones_as_notes() -> None:
    texts = [text for text, _ in lines(record(waived("pass")), 200)]
    assert [text for text in texts if text.startswith("NOTE")] == [
        "NOTE The waiver of max_memory 3 MiB of digits-vit/int8-dynamic until 2027-01-31, owner kai: oneDNN 3.12 "
        "regression. (budgets.yaml:40) The limit holds without it: remove it."
    ]
    texts = [text for text, _ in lines(record(waived()), 200)]
    assert [text for text in texts if text.startswith("NOTE")] == [
        "NOTE digits-vit/int8-dynamic: max_memory 3 MiB is waived until 2027-01-31, owner kai: oneDNN 3.12 regression. "
        "(budgets.yaml:40) It is broken: for a reason. (budgets.yaml:23)"
    ]


def test_new_cases_leave_the_first_line_green() -> None:
    text, markup = lines(pull_request(case(verdicts=(OK,)), against(status="new")), 200)[0]
    assert text == "modelopt: passed. 2 cases: 1 passed, 0 failed, 1 new"
    assert markup == {"green": True}
