"""The report as Markdown: it says the verdict first, fits, and nothing in a record becomes structure."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.markdown_escaping import escape, fenced
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.sections import Section, fit
from pytest_modelopt.results.case import CaseError
from pytest_modelopt.results.record import Record
from tests.reporting.hostile_texts import HOSTILE
from tests.reporting.records_by_hand import ENVIRONMENT, broken, case, limit, measurement, realistic, record, verdict

_COMMENT = "<!-- -->"


def _read(markdown: str) -> str:
    """What a reader sees of escaped text."""
    return html.unescape(markdown.replace(_COMMENT, ""))


def _without_code(markdown: str) -> str:
    return re.sub(r"(?ms)^(`{3,})text\n.*?\n\1$", "CODE", markdown)


def _tables(markdown: str) -> list[list[str]]:
    return [part.split("\n") for part in markdown.split("\n\n") if part.startswith("|")]


def test_the_verdict_is_the_first_line() -> None:
    first = render(realistic()).split("\n")[0]
    assert first == (
        "**Model budgets: FAILED, PARTIAL: 6 of 7 cases ran.** "
        "7 cases: 3 passed (1 with a warning), 1 failed, 1 in error, 1 inconclusive, "
        "1 not run."
    )


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (record(case(verdicts=(verdict(limit("max_size", 1.0, "1 B"), "pass"),))), "passed"),
        (
            record(case(verdicts=(verdict(limit("max_size", 1.0, "1 B", level="warn"), "fail"),))),
            "passed with warnings",
        ),
        (record(case(verdicts=(verdict(limit("min_speedup", 1.0, "1x"), "inconclusive"),))), "INCONCLUSIVE"),
        (record(case(), complete=False), "INTERRUPTED"),
        (record(case(error=CaseError("load", "x")), complete=False), "FAILED"),
    ],
)
def test_the_verdict_is_one_word(told: Record, word: str) -> None:
    assert render(told).startswith(f"**Model budgets: {word}.** ")


def test_a_table_holds_the_cells_and_what_is_broken_is_bold() -> None:
    header, rule, original, row = _tables(render(record(broken("int8-dynamic"), case("x", "other"))))[0]
    assert _cells(header) == ["verdict", "recipe", "memory", "size"]
    assert re.fullmatch(r"\|:-+\|:-+\|-+:\|-+:\|", rule)
    assert _cells(original) == ["", "original", "8.00 MiB", "4 MiB"]
    assert _cells(row) == ["**✗ FAIL**", "int8-dynamic", "**✗ 3.75 of 3 MiB**", "1 MiB"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_is_red_comes_before_the_tables_with_one_thing_to_do_and_the_rest_is_folded() -> None:
    markdown = render(realistic())
    order = [
        "**Model budgets: FAILED",
        "**FAIL** 1 planned case was not run",
        "**FAIL** digits-vit/int8-dynamic: max_memory 3 MiB is broken",
        "- Next: look for a recipe with a smaller peak",
        "<summary>more about digits-vit/int8-dynamic</summary>",
        "**ERROR** keyword-cnn/bf16",
        "- Next: correct that (see the worker's last output, too), then run this case alone: "
        'pytest --modelopt "budgets.yaml::keyword-cnn/bf16"',
        "**WARN** digits-vit/prune-structured(ratio=0.5)",
        "**INCONCLUSIVE** keyword-cnn/int8-static",
        "### digits-vit",
        "### keyword-cnn",
        "<summary>digits-vit: intervals, coverage, flips</summary>",
        "<summary>Notes about models</summary>",
        "<summary>Environment</summary>",
    ]
    places = [markdown.index(text) for text in order]
    assert places == sorted(places)


def test_a_table_that_is_too_wide_for_a_comment_is_two() -> None:
    """One with the exact figures, and one with those that were timed; both lead with verdict and recipe."""
    told = realistic().cases[1]
    (whole,) = _tables(render(record(told)))[:1]
    assert _cells(whole[0]) == ["verdict", "recipe", "memory", "size", "drop", "speedup"]
    first, second = _tables(
        render(record(replace(told, recipe="a-longer-name-than-usual + bf16 + low-rank(ratio=0.5)")))
    )[:2]
    assert _cells(first[0]) == ["verdict", "recipe", "memory", "size", "drop"]
    assert _cells(second[0]) == ["verdict", "recipe", "speedup"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_string_of_a_record_becomes_structure(hostile: str) -> None:
    def told(text: str) -> Record:
        bound = replace(limit("max_size", 1.0, text), file=text)
        cases = (
            case(f"r{text}", f"m{text}", verdicts=(verdict(bound, "fail", 2.0, text),)),
            case(
                text,
                text,
                metric=text,
                error=CaseError("load", plain_line(text), text),
                reference=measurement(None, notes=(text,)),
            ),
        )
        environment = replace(ENVIRONMENT, cpu=text, cpu_flags=(text,), packages={text: text})
        return replace(record(*cases, planned=(text,)), environment=environment)

    explained = f"Explained: [error-load]({TROUBLESHOOTING}#error-load)\n\n"
    texts = [render(told(text)) for text in ("x", hostile)]
    assert [text.count(explained) for text in texts] == [1, 1]
    harmless, markdown = (_without_code(text.replace(explained, "")) for text in texts)
    tables = _tables(markdown)
    assert len(tables) == len(_tables(harmless)) >= 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    for structure in "<>`*\\~|[":
        assert markdown.replace(_COMMENT, "").count(structure) == harmless.count(structure), structure
    assert len(markdown.split("\n")) == len(harmless.split("\n"))
    assert all(character == "\n" or character.isprintable() for character in markdown)
    assert not re.search(r"@(?!<!-- -->)|(?<!&)#(?![#<]| Notes|### )\w|://|www\.|GH-1", markdown)


@given(st.text(max_size=60))
@example("\\|")
@example("__a_b__ #1;&#35;")
def test_escaped_text_reads_as_what_it_was(text: str) -> None:
    escaped = escape(text)
    assert _read(escaped) == plain_line(text)
    assert not re.search(r"[<>|\\`*~\[\]]", escaped.replace(_COMMENT, ""))
    assert "\n" not in escaped
    assert not re.match(r"[-+=]|\d+[.)]|#+( |$)", escaped)


def test_names_with_single_underscores_stay_readable() -> None:
    assert escape("max_memory of my_model") == "max_memory of my_model"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("all :white_check_mark:", "all :<!-- -->white_check_mark:"),
        (":tada:", ":<!-- -->tada:"),
        ("a:+1: b:100:", "a:<!-- -->+1: b:<!-- -->100:"),
        ("::error::x", "&#58;:<!-- -->error::x"),
        ("2026-11-24T03:00:00Z budgets.yaml:12:7: x", "2026-11-24T03:00:00Z budgets.yaml:12:7: x"),
        ("_www.e.example _gh-1", "&#95;www<!-- -->.e.example &#95;gh<!-- -->-1"),
        ("wwww.x high-1", "wwww.x high-1"),
    ],
)
def test_what_github_would_make_a_picture_or_a_link_of_is_broken_up(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.lists(st.text(alphabet="`ab ~", max_size=12), max_size=5))
def test_no_line_of_a_code_block_can_close_it(lines: list[str]) -> None:
    fence, *_, last = fenced(lines).split("\n")
    ticks = fence.removesuffix("text")
    assert last == ticks
    assert len(ticks) >= 3
    assert all(ticks not in line for line in lines)


def test_the_workers_output_is_fenced_without_control_characters() -> None:
    error = CaseError("load", "no", "a\x1b[31mb\n````\n</details>\n")
    markdown = render(record(case(error=error)))
    assert "\n`````text\nab\n````\n</details>\n`````\n" in markdown


def test_sections_that_do_not_fit_are_left_out_whole_failures_last() -> None:
    cases = [broken(f"r{n:03}") for n in range(100)]
    passing = [case(f"p{n:03}", "fine") for n in range(300)]
    whole = render(record(*passing, *cases))
    assert len(whole.encode()) > 50_000
    markdown = render(record(*passing, *cases), 50_000)
    assert len(markdown.encode()) <= 50_000
    assert markdown.startswith("**Model budgets: FAILED.**")
    assert "### digits-vit" in markdown
    assert "### fine" not in markdown
    assert markdown.count("\n**FAIL** ") == 100
    assert "Left out to keep this report below 48 KiB: the table of fine" in markdown
    assert markdown.index("### digits-vit") < markdown.index("Left out")


def test_what_is_kept_longest_is_what_failed() -> None:
    parts = [Section("warned", "w" * 30_000, 2), Section("failed", "f" * 30_000, 1), Section("verdict", "v", 0)]
    fitted = fit(parts, 59_000)
    assert fitted.split("\n\n")[:2] == ["f" * 30_000, "v"]
    assert "Left out to keep this report below 57 KiB: warned." in fitted


def test_failing_models_come_first() -> None:
    markdown = render(record(case("p", "fine"), broken("r")))
    assert markdown.index("### digits-vit") < markdown.index("### fine")


@pytest.mark.parametrize("limit_bytes", [100, 500, 2_000, 100_000])
def test_the_limit_holds_whatever_the_sections_are(limit_bytes: int) -> None:
    parts = [Section("@|" * 5_000, "ü" * 400, rank % 5) for rank in range(200)]
    assert len(fit(parts, limit_bytes).encode()) <= limit_bytes


def test_what_fits_is_not_touched() -> None:
    assert fit([Section("a", "one", 0), Section("b", "two", 1)]) == "one\n\ntwo\n"
