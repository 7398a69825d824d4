"""Hostile records, budgets files and expressions: the small form of `benchmarks/hostile.py`, which can find faults."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hostile
from benchmarks.hostile_oracle import must_be_red
from benchmarks.hostile_records import green
from benchmarks.hostile_text import is_harmless
from pytest_modelopt.cli.main import main
from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.judging import judge
from pytest_modelopt.reporting import plain_text
from pytest_modelopt.reporting.markdown_escaping import escape
from pytest_modelopt.results.case import Case
from tests.reporting.records_by_hand import case

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", range(len(green())))
def test_what_they_are_made_of_is_green(number: int, tmp_path: Path) -> None:
    content = json.dumps(green()[number])
    (tmp_path / "record.json").write_text(content, encoding="utf-8")
    assert main(["report", "record.json"]) == 0
    assert must_be_red(content.encode()) == ""


def test_none_of_three_hundred_does_harm() -> None:
    tally = hostile.run(300, seed=20261129)
    assert tally.faults == []
    statuses = {int(ended.rpartition(" ")[2]) for ended in tally.ended if ended.startswith("records")}
    assert statuses == {0, 1, 2}


def test_a_judge_that_believes_what_records_claim_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(case: Case, *, timed_limits: int) -> Case:
        verdicts = [each for each in case.verdicts if each.limit in case.limits]
        return replace(case, verdicts=tuple(verdicts), limits=tuple(each.limit for each in verdicts))

    monkeypatch.setattr(judge, "judge", believing)
    tally = hostile.Tally(1, Path())
    hostile.records(tally, range(60))
    assert any(": green, though cases[" in fault for fault in tally.faults)


def test_text_that_is_printed_as_it_is_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "printed", lambda line: line)
    monkeypatch.setattr(plain_text, "_printable", lambda text: text)
    tally = hostile.Tally(1, Path())
    hostile.records(tally, range(60))
    assert any(": more than text is printed: " in fault for fault in tally.faults)


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_text_is_text_where_it_is_printed(text: str) -> None:
    assert all(is_harmless(plain_text.printed(line)) for line in text.split("\n"))
    assert is_harmless(plain_text.no_command(plain_text.plain_line(text)))


_UNITS = "a1 :+-(){}[]<>*_`|&\\,;=@#!?'/\n\t\x1b\u200b\u0301"


@pytest.mark.parametrize("seed", range(20))
def test_no_text_takes_time_that_grows_with_the_square_of_its_length(seed: int) -> None:
    """A hundred thousand characters of one kind: with the square it would be minutes."""
    rng = random.Random(seed)
    unit = "".join(rng.choice(_UNITS) for _ in range(rng.choice((1, 2, 3))))
    with hostile.at_most(hostile.HANG_S):
        for text in (unit * 50_000, f":{unit * 50_000}", f"##{unit * 50_000}"):
            assert is_harmless(plain_text.no_command(plain_text.plain_line(text)))
            escape(text)
            assert Evidence(case(text), None).steps
