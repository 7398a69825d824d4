"""Whatever the strings of a record are, its Markdown holds the structure that we gave it, and nothing else.

markdown-it reads it as GitHub does (tables, HTML, addresses that become links); mentions and references to issues,
which only GitHub knows, are looked for in the text.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from pytest_modelopt.cli.comment import MARKER, comment
from pytest_modelopt.reporting.addresses import TROUBLESHOOTING
from pytest_modelopt.reporting.files import metrics
from pytest_modelopt.reporting.markdown import render
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.sentences import EXPLAINED
from pytest_modelopt.reporting.terminal import lines
from pytest_modelopt.results.record import Record
from tests.reporting.filled_record import filled_record, only, string_fields, strings, with_strings
from tests.reporting.hostile_texts import EVERYTHING, HOSTILE

_READER = MarkdownIt("gfm-like", {"html": True, "linkify": True})
assert _READER.linkify is not None
_READER.linkify.add("//", None)  # GitHub links no address that begins like this
_OUR_HTML = re.compile(r"(<details><summary>[^<>]*</summary>|</details>)\n?")
_COMMENT = "<!-- -->"
_EXPLAINED = re.compile(
    rf"\[({'|'.join(sorted(EXPLAINED, key=len, reverse=True))})\]\({re.escape(TROUBLESHOOTING)}#\1\)"
)
"""Our links: to headings that we know."""
_LIVE = re.compile(r"@(?!<!-- -->)\w|(?<!&)#(?!<!-- -->)\d|\bgh-\d|(?<!\w)www\.|://", re.IGNORECASE)
ALL_HOSTILE = (
    *HOSTILE,
    EVERYTHING,
    "::stop-commands::x",
    "[x] done",
    "[^1]",
    "<!--",
    "-->",
    "<details>",
    "\\",
    "`",
    "|",
)


FILLED = filled_record()
FIELDS = string_fields()


def _numbered(*texts: str) -> Record:
    """Every string of the record is the next of `texts` with a number of its own, so that no two are the same."""
    numbered = (f"{text} {number}" for number, text in enumerate(itertools.cycle(texts)))
    told: Record = with_strings(FILLED, lambda _: next(numbered))
    limits = [tuple(verdict.limit for verdict in case.verdicts) or case.limits for case in told.cases]
    return replace(told, cases=tuple(replace(case, limits=own) for case, own in zip(told.cases, limits, strict=True)))


def _structure(markdown: str) -> Counter[str]:
    """How many of each kind of block and of markup a reader sees; AssertionError for what is not ours."""
    found: Counter[str] = Counter()
    for token in _READER.parse(_EXPLAINED.sub("", markdown)):
        if token.type == "html_block":
            assert _OUR_HTML.fullmatch(token.content.replace(_COMMENT, "")), token.content
        found[f"{token.type} {token.tag}"] += 1
        for child in token.children or ():
            assert child.type in ("text", "text_special", "softbreak", "html_inline", "strong_open", "strong_close"), (
                child
            )
            assert child.type != "html_inline" or child.content == _COMMENT
            found[f"inline {child.type}"] += child.type.startswith("strong")
    return found


def _check(markdown: str, harmless: str) -> None:
    assert _structure(markdown) == _structure(harmless)
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?\n\1$", "CODE", _EXPLAINED.sub("", markdown))
    assert not _LIVE.search(outside)
    assert all(character == "\n" or character.isprintable() for character in markdown)
    assert not [line for line in markdown.split("\n") if line.startswith("::") or "##[" in line]
    for table in re.findall(r"(?m)(?:^\|.*\n)+", outside):
        assert len({line.count("|") for line in table.strip().split("\n")}) == 1


def _harmless(text: str) -> str:
    """As long as `text` is where it is shown: the width of its names decides into how many tables a table is split."""
    return "x" * max(1, len(plain_line(text)))


ORDINARY = render(FILLED)
HARMLESS = render(_numbered("x"))


def test_every_field_that_can_hold_text_does() -> None:
    """So that the tests below reach all of them, also those that are added later."""
    assert {path for path, _ in strings(FILLED)} >= FIELDS
    texts = [text for path, text in strings(_numbered("x")) if path in FIELDS]
    assert len(texts) > 300
    assert all(text.startswith("x ") for text in texts)


def test_the_harmless_report_tells_what_the_hostile_ones_are_tested_on() -> None:
    found = _structure(HARMLESS)
    assert found["table_open table"] >= 6
    assert found["fence code"] == 1
    assert found["heading_open h4"] == 4


@pytest.mark.parametrize("shift", [0, 7, 19])
def test_no_text_becomes_structure_in_any_field(shift: int) -> None:
    """Neighbouring strings are different hostile ones: each stands beside others, and in other fields each time."""
    hostile = (*ALL_HOSTILE[shift:], *ALL_HOSTILE[:shift])
    told, harmless = _numbered(*hostile), _numbered(*map(_harmless, hostile))
    _check(render(_of_one_line(told)), render(_of_one_line(harmless)))


def _of_one_line(told: Record) -> Record:
    """A message of several lines is told as a list of them: that is its structure, and not what is tested here."""
    errors = [case.error and replace(case.error, message=" ".join(case.error.message.split())) for case in told.cases]
    return replace(
        told, cases=tuple(replace(case, error=error) for case, error in zip(told.cases, errors, strict=True))
    )


@pytest.mark.parametrize("path", sorted(FIELDS), ids="-".join)
def test_no_single_field_becomes_structure(path: tuple[str, str]) -> None:
    """All else is as in an ordinary record, so that nothing of it is left unsaid."""
    texts, fine = (
        itertools.cycle([EVERYTHING, *ALL_HOSTILE]),
        itertools.cycle(map(_harmless, [EVERYTHING, *ALL_HOSTILE])),
    )
    before, after = itertools.count(), itertools.count()  # a number each, so that the same notes are not told as one
    harmless = only(FILLED, path, lambda _: f"{next(fine)} {next(before)}")
    hostile = only(FILLED, path, lambda _: f"{next(texts)} {next(after)}")
    told = render(_of_one_line(hostile))
    if told != ORDINARY:  # else the report does not tell that field
        _check(told, render(_of_one_line(harmless)))


def test_a_comment_holds_our_marker_once_and_no_structure_of_the_record() -> None:
    short = [text for text in ALL_HOSTILE if text != EVERYTHING] + [MARKER]
    few = [replace(told, cases=told.cases[:6]) for told in (_numbered(*short), _numbered(*map(_harmless, short)))]
    told, harmless = (comment(_of_one_line(each)) for each in few)
    assert "Left out" not in told
    assert told.startswith(f"{MARKER}\n**Model budgets: FAILED, PARTIAL: ")
    assert told.count(MARKER) == 1
    _check(told.removeprefix(f"{MARKER}\n"), harmless.removeprefix(f"{MARKER}\n"))


def test_nor_does_it_become_a_command_or_a_sequence_in_the_terminal_or_a_second_line_of_a_metric() -> None:
    told = _numbered(*ALL_HOSTILE)
    for line, _ in lines(told, 120):
        assert line.isprintable()
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    before, after = metrics.render(_numbered("x")), metrics.render(told)
    assert before.count("\n") == after.count("\n")
