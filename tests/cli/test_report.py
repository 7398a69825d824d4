"""`pytest-modelopt report`: a record that is judged again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read, write
from pytest_modelopt.results.record import Environment
from tests.cli.update_by_hand import Project, one
from tests.reporting.records_by_hand import ENVIRONMENT, case, limit, record, timing


def test_figures_that_nothing_can_be_made_of_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = case(limits=(limit("min_accuracy", 0.9, "90%"),))
    assert of.variant is not None
    path = tmp_path / "record.json"
    write(record(replace(of, variant=replace(of.variant, score=1e308))), path)
    assert main(["report", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"{path}: cases[0] (digits-vit/int8-dynamic): its figures contradict each other: variant.score is 1e+308, but "
        "accuracy lies from 0 to 1 (see https://pytest-modelopt.readthedocs.io/en/latest/troubleshooting/#usage-record)\n"
    )


def test_what_is_found_anew_is_found_on_the_machine_that_measured(project: Project) -> None:
    """int8 without VNNI is why it is slow: the second machine has none, the first one has."""
    without = replace(ENVIRONMENT, cpu_capability="AVX2", cpu_flags=("avx2",))
    slow = {"m/int8-dynamic": case(timing=timing(61))}  # 4 ms against 5 ms
    judged = project.measured(one("{min_speedup: 1.5x}"), slow)
    told = [_found(project, judged.cases[0].id, machines) for machines in ((ENVIRONMENT, without), (without, without))]
    assert told[0] == told[1]
    assert "VNNI" in told[0]


def _found(project: Project, case_id: str, machines: tuple[Environment, Environment]) -> str:
    """What is told of a case of the second machine."""
    path = project.folder / "modelopt-report" / "record.json"
    of = read(path)
    merged = replace(of, environment=machines[0], other_machines=(machines[1],))
    write(replace(merged, cases=(replace(of.cases[0], id=case_id, machine=1),)), path)
    assert main(["report", str(path), "--budgets", "budgets.yaml"]) == 1
    lines = project.capsys.readouterr().out.splitlines()
    return "\n".join(line for line in lines if not line.startswith("digits"))
