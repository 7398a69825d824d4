"""Hostile records, budgets files and expressions: the small form of `benchmarks/hostile.py`, which can find faults."""

from __future__ import annotations

import json
import random
import time
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hostile
from benchmarks.hostile_green import green
from benchmarks.hostile_oracle import BEYOND, must_be_red
from benchmarks.hostile_text import BUDGETS, is_harmless
from pytest_modelopt.cli.main import main
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.config.schema import json_schema
from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.judging import judge
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting import plain_text
from pytest_modelopt.reporting.markdown_escaping import escape
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import loads
from pytest_modelopt.results.record import Record
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


@pytest.mark.parametrize("name", ["collected", "skipped", "idle", "uncollected"])
def test_the_oracle_reads_records_that_leave_out_what_is_nothing(name: str, tmp_path: Path) -> None:
    data = {**green()[0], "whole": True}
    data.pop(name, None)
    content = json.dumps(data)
    (tmp_path / "record.json").write_text(content, encoding="utf-8")
    assert main(["report", "record.json"]) == (1 if must_be_red(content.encode()) else 0)


def test_every_field_of_a_record_is_in_one_of_them() -> None:
    """So that the hostile ones reach whatever is added to the record. What the doctor finds is not read."""
    filled: set[tuple[str, str]] = set()
    for data in green():
        _collect(loads(json.dumps(data)), filled)
    wanted = {(kind.__name__, field.name) for kind in _dataclasses(Record) for field in fields(kind)}
    assert {each for each in wanted - filled if each[0] != "Finding"} == {
        ("Case", "findings"),
        ("Case", "error"),  # red ones, which are among the lies
        ("CaseError", "stage"),
        ("CaseError", "message"),
        ("CaseError", "output"),
        ("Against", "unknown"),
        ("Record", "uncollected"),
        ("Verdict", "waived"),
    }


def _collect(value: object, filled: set[tuple[str, str]]) -> None:
    """(class, field) of all fields that hold something."""
    if is_dataclass(value):
        for field in fields(value):
            inner = getattr(value, field.name)
            if inner is not None and inner not in ((), "", {}):
                filled.add((type(value).__name__, field.name))
                _collect(inner, filled)
    elif isinstance(value, (tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            _collect(each, filled)


def _dataclasses(kind: Any) -> set[Any]:
    """Those that a field of the type may hold, itself included."""
    inner = typing.get_type_hints(kind).values() if is_dataclass(kind) else typing.get_args(kind)
    return ({kind} if is_dataclass(kind) else set()).union(*map(_dataclasses, inner))


def test_every_limit_and_every_key_of_a_budgets_file_is_in_one_of_them() -> None:
    assert set(LIMITS) == set(BEYOND)
    keys: set[str] = set()
    _add_keys(json_schema(), keys)
    assert {key for key in keys if not any(f"{key}:" in text for text in BUDGETS)} == {
        *("higher_is_better", "prepare", "per_example"),
    }


def _add_keys(schema: Any, keys: set[str]) -> None:
    if isinstance(schema, dict):
        keys.update(schema.get("properties", ()))
    if isinstance(schema, (dict, list)):
        for each in schema.values() if isinstance(schema, dict) else schema:
            _add_keys(each, keys)


@pytest.mark.parametrize("text", BUDGETS)
def test_budgets_files_that_they_are_made_of_are_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "budgets.yaml").write_text(text, encoding="utf-8")
    assert load_budgets(tmp_path / "budgets.yaml", relative_to=tmp_path).cases


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


def _spin() -> NoReturn:
    while True:
        pass


def test_a_hang_is_known_by_the_time_of_the_processor_and_a_longer_one_of_the_clock() -> None:
    with pytest.raises(hostile.Hang), hostile.at_most(0.05):
        _spin()
    with hostile.at_most(0.05):
        time.sleep(0.1)  # as on a busy machine
    with pytest.raises(hostile.Hang), hostile.at_most(0.01):
        time.sleep(60)


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
