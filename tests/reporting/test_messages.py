"""Every code of a verdict has its sentence, and every sentence its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest_modelopt
from pytest_modelopt.reporting.messages.reasons import REASONS
from pytest_modelopt.reporting.messages.verdicts import FOUND, format_verdict
from tests.reporting.records_by_hand import case, limit, verdict

ROOMS = [Path(pytest_modelopt.__file__).parent / room for room in ("limits", "judging")]
NO_VERDICTS = {"small-slices", "original-majority"}
"""Codes of notes and findings."""


def _codes() -> Iterator[str]:
    """Strings in the calls that make verdicts, and in what they are given by name."""
    for file in (file for room in ROOMS for file in room.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                place = {"Reason": 0, "undecided": 1, "not_measured": 1}.get(name)
                given = node.args[place : place + 1] if place is not None else []
                yield from (arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                values = node.value.elts if isinstance(node.value, ast.Tuple) else []
                named = [target.id for target in node.targets[0].elts if isinstance(target, ast.Name)]
                if "code" in named and values and isinstance(values[0], ast.Constant):
                    yield str(values[0].value)


def test_every_code_has_a_sentence_and_every_sentence_a_code() -> None:
    assert set(_codes()) - NO_VERDICTS | {"missing"} == {*FOUND, *REASONS}


def test_a_code_of_another_version_is_told_by_its_name() -> None:
    told = verdict(limit("max_size", 1.0, "1 B"), "fail", 2.0, "from-the-future")
    assert format_verdict(case(), told) == (
        "digits-vit/int8-dynamic: max_size 1 B is broken: from-the-future. (budgets.yaml:23)"
    )
