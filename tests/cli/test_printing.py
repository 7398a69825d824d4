"""Whatever a stranger's record or budgets file holds, what commands print is text: no control, no command, no break."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.results.json import dumps
from tests.reporting.records_by_hand import MIB, case, limit, record

HOSTILE = {
    "a workflow command": "\n::error::x",
    "an old one": "x ##[error]y",
    "Azure's": "##vso[task.setvariable variable=a]b",
    "an indented one": "\n  ::stop-commands::x",
    "behind a carriage return": "x\r::error::y",
    "behind a separator": "x\u2028::error::y\u2029::error::z\x85::error::z",
    "an invisible one": "\n\u200b::error::x",
    "an escape": "\x1b[2J\x1b]8;;http://e.example\x07x\x1b]8;;\x07",
    "C0 and C1": "\x00\x07\x08\x9b31m\x90x\x9c\x7f",
    "bidirectional": "\u202egnp\u2066.exe\u2069\u061c",
    "zero width": "a\u200b\u200c\u200d\u2060\ufeff\u00adb",
    "half a character": "\ud800",
}


def is_text(printed: str) -> bool:
    lines = printed.split("\n")
    return all(
        line.isprintable() and not line.lstrip().startswith("::") and "##[" not in line and "##vso[" not in line
        for line in lines
    )


def _records(hostile: str) -> list[dict[str, Any]]:
    """One that is told, and others that are refused: for a key, a value, a name in a contradiction, and a version."""
    data: dict[str, Any] = json.loads(dumps(record(case(limits=(limit("max_size", MIB / 2, "512 KiB"),)))))
    made = [json.loads(json.dumps(data)) for _ in range(6)]
    for told in made[:2]:
        told["cases"][0] |= {"id": hostile, "model": hostile, "recipe": hostile}
        told["cases"][0]["limits"][0]["file"] = hostile
    made[1]["cases"][0]["variant"]["score"] = 7.5
    made[2][hostile] = 1
    made[3]["cases"][0]["base"] = {"name": hostile, "status": hostile, "why": hostile}
    made[4]["schema_version"] = hostile
    made[5]["cases"][0]["limits"][0]["text"] = hostile
    return made


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_of_a_record(hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("version: 1\nmodels: {m: {factory: 'a:b', data: 'a:d', recipes: {bf16: {max_size: 1 MiB}}}}\n")
    file, statuses = tmp_path / "record.json", []
    for data in _records(hostile):
        file.write_text(json.dumps(data), encoding="utf-8")
        for command in (
            ["report"],
            ["report", "--markdown"],
            ["report", "--budgets", str(budgets)],
            ["merge"],
            ["comment"],
            ["update", "--budgets", str(budgets), "--dry-run"],
        ):
            statuses.append(main([command[0], str(file), *command[1:]]))
            out, err = capsys.readouterr()
            assert is_text(out)
            assert is_text(err)
            assert (statuses[-1] == 2) == bool(err)
    told = [1, 1, 2, 1, 0, 0] if "\ud800" not in hostile else 6 * [2]  # no text in JSON
    assert statuses == told + 5 * 6 * [2]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_of_a_budgets_file(hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = json.dumps(hostile)
    good = tmp_path / "record.json"
    good.write_text(dumps(record(case())), encoding="utf-8")
    file = tmp_path / "budgets.yaml"
    for text in (
        f"version: {quoted}\nmodels: {{}}\n",
        f"version: 1\nmodels: {{{quoted}: {{factory: 'a:b', data: 'a:d', recipes: {{bf16: {{max_size: 1 MiB}}}}}}}}\n",
        f"version: 1\nmodels: {{m: {{factory: {quoted}, data: 'a:d', recipes: {{bf16: {{max_size: 1 MiB}}}}}}}}\n",
        f"version: 1\nmodels: {{m: {{factory: 'a:b', data: 'a:d', recipes: {{{quoted}: {{max_size: 1 MiB}}}}}}}}\n",
        f"version: 1\nmodels: {{m: {{factory: 'a:b', data: 'a:d', recipes: {{bf16: {{{quoted}: 1 MiB}}}}}}}}\n",
        f"version: 1\nmodels: {{m: {{factory: 'a:b', data: 'a:d', recipes: {{bf16: {{max_size: {quoted}}}}}}}}}\n",
    ):
        file.write_text(text, encoding="utf-8")
        for command in (["validate", str(file)], ["update", str(good), "--budgets", str(file), "--dry-run"]):
            assert main(command) in (0, 2)
            out, err = capsys.readouterr()
            assert is_text(out)
            assert is_text(err)


def test_indentation_and_line_feeds_stay(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\n  b  c\n\n\td")
    assert capsys.readouterr().out == "a\n  b  c\n\n    d\n"


def test_what_a_terminal_has_no_letters_for_is_a_question_mark_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    tell("modèle 模")
    assert written.getvalue() == b"mod?le ?\n"


def test_who_has_seen_enough_ends_a_command_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `pytest-modelopt schema | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["schema"]) == 130
    assert capsys.readouterr().err == ""
