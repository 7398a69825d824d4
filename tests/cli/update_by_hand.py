"""A folder with a budgets file and the record of a run of it, whose figures were made by hand; and `update` in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.judging.judge import judge
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import write
from pytest_modelopt.results.record import Record
from tests.reporting import records_by_hand
from tests.reporting.records_by_hand import MIB, measurement, timing
from tests.reporting.records_by_hand import case as a_case

CASE = "m/int8-dynamic"
TIMED = timing(200, 4_000_000, 3_000_000)
"""4 ms against 3 ms in every pair of ten seconds: 1.333x, and 1.278x for certain (4.1% less, as in test_judge.py)."""


def of_bytes(memory: float = 2 * MIB, size: int = MIB) -> Case:
    """Against an original of 8 MiB of memory and 4 MiB of size."""
    weights = min(int(memory), size)
    return a_case(variant=measurement("x", weights=weights, peak=int(memory) - weights, size=size))


@dataclass
class Project:
    """`update` runs in the folder; `out` and `err` are what it printed last."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    @property
    def budgets(self) -> Path:
        return self.folder / "budgets.yaml"

    @property
    def text(self) -> str:
        return self.budgets.read_bytes().decode()

    def measured(self, text: str, cases: Mapping[str, Case], **changes: Any) -> Record:
        """Write the file and the record of a run of it in which each case came out as given, judged as the gate does.

        A case by name that is not given was not run.
        """
        self.budgets.write_bytes(text.encode())
        entries = load_budgets(self.budgets, relative_to=self.folder).cases
        assert {entry.name for entry in entries} >= set(cases)
        timed = sum(LIMITS[limit.name].is_timed for entry in entries for limit in entry.limits)
        of = [
            replace(
                cases[entry.name],
                id=f"budgets.yaml::{entry.model.name}::{entry.row}",
                model=entry.model.name,
                recipe=entry.recipe,
                workload=entry.workload.name,
                limits=entry.limits,
                inference=entry.model.inference,
            )
            for entry in entries
            if entry.name in cases
        ]
        judged = tuple(judge(case, timed_limits=timed) for case in of)
        record = replace(records_by_hand.record(*judged), timed_limits=timed, **changes)
        self.write(record)
        return record

    def write(self, record: Record) -> None:
        write(record, self.folder / "modelopt-report" / "record.json")

    def command(self, *arguments: str) -> list[str]:
        """The lines that another command prints, which must succeed."""
        assert main(arguments) == 0
        return self.capsys.readouterr().out.splitlines()

    def update(self, *arguments: str, status: int = 0) -> str:
        """What the file says after it."""
        assert main(["update", *arguments]) == status
        self.out, self.err = self.capsys.readouterr()
        return self.text


def one(limits: str, *, model: str = "", recipe: str = "int8-dynamic", defaults: str = "") -> str:
    """A file with one case, `m/int8-dynamic`; `limits` is a flow mapping, `model` more lines of the model."""
    return (
        f"version: 1\n{defaults}models:\n  m:\n    factory: shop:net\n    data: shop:data\n{model}    recipes:\n"
        f"      {recipe}: {limits}\n"
    )
