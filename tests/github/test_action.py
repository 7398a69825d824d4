"""The action's one step, run as plain shell: what it passes to pytest, and what it says of the run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.github.jobs import ACTION, Job, gate, read, steps_of

BUDGETS = """
version: 1
models:
  m:
    factory: shop:model
    recipes:
      int8-dynamic:
        max_memory: {limit}
"""
SHOP = """
import torch
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).eval()
def data():
    return torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)
"""


@pytest.mark.parametrize(("limit", "verdict", "status"), [("1 MB", "passed", 0), ("1 B", "failed", 1)])
def test_a_run_sets_its_outputs_green_or_red(job: Job, limit: str, verdict: str, status: int) -> None:
    text = BUDGETS.format(limit=limit).replace("    recipes:", "    data: shop:data\n    recipes:")
    (job.workspace / "limits.yaml").write_text(text)
    (job.workspace / "shop.py").write_text(SHOP)
    done = gate(job, budgets="limits.yaml", report="out put", pytest_arguments="limits.yaml\n\n-p\nno:cacheprovider\n")
    assert done.returncode == status, done.stdout + done.stderr
    folder = job.workspace / "out put"
    assert job.outputs == {
        "verdict": verdict,
        "record": str(folder / "record.json"),
        "summary": str(folder / "summary.md"),
    }
    assert json.loads((folder / "record.json").read_text())["complete"] is True
    assert "int8-dynamic" in job.files["GITHUB_STEP_SUMMARY"].read_text()
    assert ("::error file=limits.yaml,line=9," in done.stdout) == (status == 1)


def test_a_gate_that_cannot_run_is_an_error_that_is_told(job: Job) -> None:
    """An earlier run's record does not pass for this one's."""
    (job.workspace / "budgets.yaml").write_text("version: 7\n")
    stale = job.workspace / "modelopt-report" / "record.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    done = gate(job)
    assert done.returncode == 4
    assert job.outputs == {"verdict": "error"}
    assert not stale.exists()
    assert "the gate could not run** (exit status 4)" in job.files["GITHUB_STEP_SUMMARY"].read_text()
    assert "::error::model-budgets: the gate could not run (exit status 4)\n" in done.stdout


# --- the action's arguments: what it calls is a program that writes down how it is called ----------------------------

CALLED = """#!/bin/bash
[[ $2 == pytest ]] || exit "${REPORT_STATUS:-0}"
printf '%s\\0' "$@" > "$GITHUB_WORKSPACE/called"
mkdir -p report; echo '{}' > report/record.json
exit ${STATUS:-0}
"""


@pytest.fixture
def python(job: Job) -> str:
    program = job.folder / "py thon"
    program.write_text(CALLED)
    program.chmod(0o755)
    return str(program)


def called(job: Job) -> list[str]:
    return (job.workspace / "called").read_text().split("\0")[:-1]


def test_inputs_that_are_not_given_are_not_passed_on(job: Job, python: str) -> None:
    assert gate(job, python=python).returncode == 0
    assert called(job) == ["-m", "pytest", "--modelopt", "--modelopt-report=modelopt-report", "--modelopt-whole"]


def test_every_input_reaches_pytest(job: Job, python: str) -> None:
    done = gate(
        job,
        python=python,
        budgets="ci/budgets.yaml",
        against="merge-base:origin/main",
        strict="true",
        report="report",
        pytest_arguments="tests/a b.py\n-k one or two",
    )
    assert done.returncode == 0
    options = ["--modelopt-report=report", "--modelopt-budgets=ci/budgets.yaml"]
    options += ["--modelopt-against=merge-base:origin/main", "--modelopt-whole", "--modelopt-strict"]
    assert called(job) == ["-m", "pytest", "--modelopt", *options, "tests/a b.py", "-k one or two"]
    assert job.outputs == {"verdict": "passed", "record": str(job.workspace / "report" / "record.json")}


def test_a_folder_may_be_named_by_its_whole_path(job: Job, python: str) -> None:
    folder = job.folder / "elsewhere"
    Path(python).write_text(CALLED.replace("report/record.json", f"'{folder}/record.json'"))
    folder.mkdir()
    assert gate(job, python=python, report=str(folder)).returncode == 0
    assert job.outputs == {"verdict": "passed", "record": str(folder / "record.json")}


def test_an_empty_folder_is_the_default_one_and_not_the_working_folder(job: Job, python: str) -> None:
    ours = job.workspace / "summary.md"
    ours.write_text("of the project")
    assert gate(job, python=python, report="").returncode == 0
    assert called(job)[-2:] == ["--modelopt-report=modelopt-report", "--modelopt-whole"]
    assert ours.read_text() == "of the project"


@pytest.mark.skipif(os.name == "nt", reason="there `C:` is a drive")
def test_a_whole_path_of_windows_is_not_looked_for_in_the_working_folder(job: Job, python: str) -> None:
    folder = "D:/a/_temp"
    Path(python).write_text(CALLED.replace("report", folder))
    gate(job, python=python, report=folder)
    assert job.outputs == {"verdict": "passed", "record": f"{folder}/record.json"}


HOSTILE = [
    "$(touch hurt)",
    "`touch hurt`",
    "; touch hurt #",
    "' ; touch hurt ; '",
    '" ; touch hurt ; "',
    "a\nverdict=passed\nb",
    "x\nend\ntouch hurt",
    "* ? [a] ~ $HOME ${PATH} \\",
    "--co",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["budgets", "against"])
def test_hostile_inputs_stay_data(job: Job, python: str, name: str, value: Any) -> None:
    gate(job, python=python, **{name: value})
    assert called(job)[-2:] == [f"--modelopt-{name}={value}", "--modelopt-whole"]
    assert not (job.workspace / "hurt").exists()
    assert job.outputs == {"verdict": "passed"}


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_folder_stays_data(job: Job, python: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "1")
    folder = job.workspace / value
    (folder).mkdir()
    for name in ("record.json", "summary.md"):
        (folder / name).write_text("stale")
    program = Path(python)
    program.write_text(CALLED.replace("mkdir -p report; echo '{}' >", 'echo x > "${4#*=}"/summary.md #'))
    assert gate(job, python=python, report=value).returncode == 1
    assert called(job) == ["-m", "pytest", "--modelopt", f"--modelopt-report={value}", "--modelopt-whole"]
    assert job.outputs == {"verdict": "failed", "summary": str(folder / "summary.md")}
    assert not (folder / "record.json").exists()
    assert not (job.workspace / "hurt").exists()


@pytest.mark.parametrize("value", [each for each in HOSTILE if "\n" not in each])
def test_a_hostile_argument_is_one_argument(job: Job, python: str, value: str) -> None:
    gate(job, python=python, pytest_arguments=f"{value}\n{value}")
    assert called(job)[-2:] == [value, value]
    assert not (job.workspace / "hurt").exists()


@pytest.mark.parametrize("name", ["strict", "whole"])
@pytest.mark.parametrize("value", ["yes", "True", "$(touch hurt)", "false\ntrue"])
def test_a_switch_is_true_or_false(job: Job, python: str, name: str, value: Any) -> None:
    done = gate(job, python=python, **{name: value})
    assert (done.returncode, job.outputs) == (4, {"verdict": "error"})
    assert done.stdout == f"::error::model-budgets: the input {name} is neither 'true' nor 'false'\n"
    assert not (job.workspace / "called").exists()


@pytest.mark.parametrize(
    ("status", "verdict"), [(0, "passed"), (1, "failed"), (2, "error"), (3, "error"), (5, "error")]
)
def test_the_exit_status_of_pytest_is_the_steps(
    job: Job, python: str, monkeypatch: pytest.MonkeyPatch, status: int, verdict: str
) -> None:
    monkeypatch.setenv("STATUS", str(status))
    assert gate(job, python=python, report="report").returncode == status
    assert job.outputs["verdict"] == verdict
    assert (job.files["GITHUB_STEP_SUMMARY"].read_text() == "") == (verdict != "error")


def test_a_status_of_0_does_not_hide_what_the_record_says(
    job: Job, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT_STATUS", "1")
    done = gate(job, python=python, report="report")
    assert (done.returncode, job.outputs["verdict"]) == (1, "failed")
    assert "::error::model-budgets: pytest ended with status 0, but its record is missing or red\n" in done.stdout


def test_a_step_that_is_ended_from_outside_has_said_error(job: Job, python: str) -> None:
    Path(python).write_text("#!/bin/bash\nkill -9 $PPID\n")
    assert gate(job, python=python).returncode == -9
    assert job.outputs == {"verdict": "error"}


def test_a_part_of_a_suite_need_not_be_whole(job: Job, python: str) -> None:
    assert gate(job, python=python, whole="false").returncode == 0
    assert called(job) == ["-m", "pytest", "--modelopt", "--modelopt-report=modelopt-report"]


def test_it_runs_in_the_folder_that_is_named() -> None:
    (step,) = steps_of(ACTION)
    assert step["working-directory"] == "${{ inputs.folder }}"
    assert read(ACTION)["inputs"]["folder"]["default"] == "."
