"""A job runs a pytest of its own, tells what that reports, and ends it however the job ends."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pytest_modelopt.fleet.job import ROOT, Event, Job, carried_environment, run_job

TESTS = """
import os, pathlib, sys, time
def test_first(): pathlib.Path("first").write_text(str(os.getpid()))
def test_long(): time.sleep(float(os.environ.get("TORCH_SLEEP", "0")))
def test_environment():
    print(os.environ.get("OMP_NUM_THREADS"), os.environ.get("HF_HOME"), os.environ.get("RAY_OWN"))
    assert "PYTEST_MODELOPT_JOB" not in os.environ
    assert 0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS, encoding="utf-8")
    return tmp_path


def job(*tests: str, environment: dict[str, str] | None = None) -> Job:
    names = tuple(f"tests/test_it.py::{name}" for name in tests)
    carried = {**carried_environment(Path("/nowhere")), **(environment or {})}
    command = ("pytest", "-p", "pytest_modelopt.plugin.fleet_job", "-p", "no:cacheprovider", f"--rootdir={ROOT}")
    return Job("it", names, (*command, f"{ROOT}/tests"), ".", carried)


def reported(events: Iterator[Event]) -> tuple[list[Event], Event]:
    told = list(events)
    assert set(told[0]) == {"hello"}
    return [each["report"] for each in told[1:-1]], told[-1]


def test_it_runs_its_tests_and_no_others_and_tells_each_phase(root: Path) -> None:
    reports, end = reported(run_job(job("test_long", "test_first"), root))
    assert [(each["nodeid"].partition("::")[2], each["when"], each["outcome"]) for each in reports] == [
        (name, phase, "passed") for name in ("test_long", "test_first") for phase in ("setup", "call", "teardown")
    ]
    assert end["end"] == 0
    assert json.loads(json.dumps(reports)) == reports


def test_a_folder_without_files_which_does_not_travel_is_there(root: Path) -> None:
    called = replace(job("test_first"), folder="empty/one")
    reports, end = reported(run_job(called, root))
    assert (len(reports), end["end"]) == (3, 0)
    assert (root / "empty" / "one" / "first").is_file()


def test_its_environment_is_that_of_who_submitted_it_where_measuring_depends_on_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_HOME", str(root / "models"))
    monkeypatch.setenv("TORCH_HOME", f"{root}2/models")
    monkeypatch.setenv("TORCH_FOLDERS", os.pathsep.join((str(root), f"{root}/src")))
    carried = carried_environment(root)
    assert carried["HF_HOME"] == f"{ROOT}/models"
    assert carried["TORCH_HOME"] == f"{root}2/models"
    assert carried["TORCH_FOLDERS"] == os.pathsep.join((ROOT, f"{ROOT}/src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the engine, there
    monkeypatch.setenv("RAY_OWN", "kept")
    reports, end = reported(run_job(job("test_environment", environment=carried), root))
    assert end["end"] == 1
    [call] = [each for each in reports if each["when"] == "call"]
    assert call["sections"] == [["Captured stdout call", f"3 {root}/models kept\n"]]


def test_what_is_not_collected_there_is_told(root: Path) -> None:
    told = list(run_job(job("test_first", "test_gone"), root))
    assert {"missing": ["tests/test_it.py::test_gone"]} in told


def test_how_pytest_ended_is_told_with_its_last_output(root: Path) -> None:
    (root / "conftest.py").write_text("raise OSError('no such disk')", encoding="utf-8")
    _, end = reported(run_job(job("test_first"), root))
    assert end["end"] == pytest.ExitCode.USAGE_ERROR
    assert "no such disk" in end["output"]


def sleeping(root: Path) -> tuple[Iterator[Event], psutil.Process]:
    """A job in the middle of its second test, and its pytest."""
    events = run_job(job("test_first", "test_long", environment={"TORCH_SLEEP": "60"}), root)
    process = psutil.Process(next(events)["hello"]["process"])
    for event in events:
        if event["report"]["nodeid"].endswith("test_long"):
            break
    return events, process


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_closing_it_ends_its_pytest(root: Path) -> None:
    events, process = sleeping(root)
    assert process.is_running()
    events.close()  # type: ignore[attr-defined]
    assert has_ended(process)


def test_its_pytest_ends_with_the_process_that_runs_it(root: Path) -> None:
    """As when an engine's process is killed, or all of them with their machine."""
    script = (
        "import os, pickle, sys, time\nfrom pathlib import Path\nfrom pytest_modelopt.fleet.job import run_job\n"
        "events = run_job(pickle.loads(bytes.fromhex(sys.argv[1])), Path(sys.argv[2]))\n"
        "print(next(events)['hello']['process'], flush=True)\n"
        "for event in events: print(event['report']['nodeid'], flush=True)\n"
    )
    packed = pickle.dumps(job("test_first", "test_long", environment={"TORCH_SLEEP": "60"})).hex()
    runner = subprocess.Popen([sys.executable, "-c", script, packed, str(root)], stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    process = psutil.Process(int(runner.stdout.readline()))
    while not runner.stdout.readline().endswith("test_long\n"):
        pass
    runner.kill()
    runner.wait()
    runner.stdout.close()
    end = time.monotonic() + 30
    while not has_ended(process):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert (root / "first").exists()
