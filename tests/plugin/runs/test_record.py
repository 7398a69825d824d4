"""The record is written whatever happens, survives pytest-xdist, and can be judged and told again without any model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import processes_in
from pytest_modelopt.cli.main import main
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.reporting import page
from pytest_modelopt.results.files.locked_folders import clear_abandoned
from pytest_modelopt.results.json import read
from tests.plugin.small_project import BUDGETS, one_case

Project = Callable[..., pytest.Pytester]

BROKEN = "  broken:\n    factory: shop:raises\n    data: shop:data\n    recipes:\n      int8-dynamic:\n"
MIXED = BUDGETS.replace("max_memory: 1 MB", "max_memory: 1 kB") + BROKEN


def run_with_report(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Any]:
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", *arguments)
    return result, read(pytester.path / "report" / "record.json")


def test_a_red_run_with_a_case_in_error_is_recorded_whole(project: Project) -> None:
    result, record = run_with_report(project(MIXED))
    result.assert_outcomes(passed=2, failed=2)
    assert record.complete
    assert [(case.name, case.error is not None) for case in record.cases] == [
        ("classifier/int8-dynamic", False),
        ("classifier/low-rank(ratio=0.5)", False),
        ("images/prune-unstructured(ratio=0.5)", False),
        ("broken/int8-dynamic", True),
    ]
    assert [case.id for case in record.cases] == list(record.planned)
    assert record.environment is not None
    assert record.environment.torch.startswith("2.")
    first = record.cases[0]
    assert {verdict.limit.name: verdict.outcome for verdict in first.verdicts}["max_memory"] == "fail"
    assert first.reference.memory_bytes > first.variant.memory_bytes > 0
    assert len(first.timing.pairs) >= 1


def test_record_summary_and_metrics_stand_beside_each_other_and_nothing_else(project: Project) -> None:
    pytester = project(one_case())
    (pytester.path / "page.html").write_text("of an earlier run", encoding="utf-8")
    result, _ = run_with_report(pytester, "--modelopt-html", "page.html")
    result.assert_outcomes(passed=1)
    report = pytester.path / "report" / "record.json"
    assert (pytester.path / "page.html").read_text(encoding="utf-8") == page.render(read_judged(report))
    names = sorted(path.name for path in (pytester.path / "report").iterdir())
    assert names == ["metrics.txt", "record.json", "summary.md"]
    assert (pytester.path / "report" / "metrics.txt").read_text(encoding="utf-8").endswith("\n# EOF\n")
    summary = (pytester.path / "report" / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("**Model budgets: passed.** 1 case")
    assert "| int8-dynamic " in summary


@pytest.mark.parametrize(
    ("others", "status"), [(["test_plain.py"], pytest.ExitCode.OK), (["nosuch"], pytest.ExitCode.USAGE_ERROR)]
)
def test_the_report_of_an_earlier_run_does_not_stay_where_this_one_measures_nothing(
    project: Project, others: list[str], status: int
) -> None:
    pytester = project(one_case())
    pytester.makepyfile(test_plain="def test_it(): pass")
    report = ("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    assert pytester.runpytest(*report, "budgets.yaml").ret == 0
    assert (pytester.path / "report" / "record.json").exists()
    result = pytester.runpytest(*report, *others)
    assert result.ret == status
    assert not (pytester.path / "report" / "record.json").exists()


def test_the_report_folder_can_be_named_in_the_ini_file(project: Project) -> None:
    pytester = project(one_case())
    pytester.makeini("[pytest]\nmodelopt_report = out/gate")
    pytester.runpytest("--modelopt").assert_outcomes(passed=1)
    assert (pytester.path / "out" / "gate" / "record.json").is_file()


def test_without_the_option_no_file_is_written(project: Project) -> None:
    pytester = project(one_case())
    before = {path.name for path in pytester.path.iterdir()}
    pytester.runpytest("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert {path.name for path in pytester.path.iterdir()} - before <= {"__pycache__"}


SLOW = "import time, shop\ndef model():\n    open('slow-started', 'w').close()\n    time.sleep(300)\n"


AFTER_THE_OTHER = """
import pathlib, time
def pytest_runtest_setup(item):
    record = pathlib.Path("report/record.json")
    while "::slow::" in item.nodeid and not (record.exists() and '"verdicts"' in record.read_text()):
        time.sleep(0.1)
"""
"""The other case is not timed while the slow model is loaded."""


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A run that was started in the background ignores Ctrl-C, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    ("how", "arguments"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGTERM, ("-n", "2")), (signal.SIGKILL, ())],
    ids=["interrupted", "terminated", "terminated under xdist", "killed"],
)
def test_an_interrupted_run_leaves_the_record_of_what_it_had(
    project: Project,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
    arguments: tuple[str, ...],
) -> None:
    """And no worker; and no folder, which the next run removes where this one could not. Only the process with the
    terminal gets the signal."""
    temporary = tmp_path_factory.mktemp("t")  # a short name: sockets in there may have 107 characters
    slow = "  slow:\n    factory: slow:model\n    data: shop:data\n    recipes:\n      int8-dynamic:\n"
    pytester = project(one_case() + slow)
    (pytester.path / "slow.py").write_text(SLOW, encoding="utf-8")
    (pytester.path / "conftest.py").write_text(AFTER_THE_OTHER, encoding="utf-8")
    # Elsewhere: the working folder of this process, and of its fork server, is pytester's.
    folder = Path(shutil.copytree(pytester.path, tmp_path_factory.mktemp("p") / "project"))
    if how is signal.SIGTERM:  # as of a job in the background, where Ctrl-C cannot end pytest-xdist's workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-report", "report", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    record_file = folder / "report" / "record.json"
    while not (folder / "slow-started").exists() or not (record_file.exists() and read(record_file).cases):
        assert time.monotonic() < deadline, "the slow model never started"
        time.sleep(0.1)
    assert any("multiprocessing" in line for line in processes_in(folder, 0).values()), "else nothing could be left"
    os.kill(process.pid, how)
    output, _ = process.communicate(timeout=60)
    assert processes_in(folder, 20) == {}, "workers have a process group of their own, and end all the same"
    record = read(record_file)
    assert not record.complete
    assert len(record.cases) == 1
    assert len(record.planned) == 2
    assert main(["report", str(record_file)]) == 1
    if how is signal.SIGKILL:
        assert list(temporary.glob("pytest-modelopt-*/*.pt"))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        clear_abandoned()
    else:
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert "1 planned case was not run: budgets.yaml::slow::int8-dynamic" in output
    assert list(temporary.glob("pytest-modelopt-*")) == []


# --- told again ------------------------------------------------------------------------------------------------------


def test_a_record_is_judged_and_told_again_without_any_model(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(one_case("{max_memory: 1 kB}") + BROKEN)
    result, _ = run_with_report(pytester)
    path = str(pytester.path / "report" / "record.json")
    (pytester.path / "shop.py").unlink()
    capsys.readouterr()
    assert main(["report", path]) == 1
    told = capsys.readouterr().out
    assert "max_memory 1 kB is broken" in told
    assert told.splitlines()[-1] in result.outlines, "the same closing line as in the run"

    assert main(["report", path, "--markdown"]) == 1
    assert capsys.readouterr().out == (pytester.path / "report" / "summary.md").read_text(encoding="utf-8")

    # The same measurements against other limits: red becomes green where only the limit was to blame.
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    data["cases"] = [case for case in data["cases"] if case["error"] is None]
    data["planned"] = [case["id"] for case in data["cases"]]
    Path(path).write_text(json.dumps(data), encoding="utf-8")
    (pytester.path / "budgets.yaml").write_text(one_case("{max_memory: 1 MB}"), encoding="utf-8")
    monkeypatch.chdir(pytester.path)
    assert main(["report", path]) == 1
    assert main(["report", path, "--budgets", "budgets.yaml"]) == 0


def test_wrong_input_to_the_commands_is_said_in_words(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(one_case("{max_sizes: 1 kB}"))
    monkeypatch.chdir(pytester.path)
    capsys.readouterr()
    assert main(["validate"]) == 2
    assert "budgets.yaml:7" in capsys.readouterr().err
    assert main(["report", "none.json"]) == 2
    assert "none.json" in capsys.readouterr().err
    (pytester.path / "record.json").write_text("{}", encoding="utf-8")
    assert main(["report", "record.json"]) == 2
    (pytester.path / "budgets.yaml").write_text(one_case("{max_size: 1 kB}"), encoding="utf-8")
    capsys.readouterr()
    assert main(["validate"]) == 0
    assert capsys.readouterr().out == "budgets.yaml: 1 models, 1 cases\n  m/int8-dynamic: max_size 1 kB\n"


def test_the_schema_is_printed_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["models"]


def test_a_waived_limit_is_waived_by_every_reader(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    waiver = "{case: m/int8-dynamic, limit: max_size, until: 2099-01-31, reason: larger for now, ceiling: 1 MB}"
    pytester = project(f"{one_case('{max_size: 1 kB}')}waivers:\n  - {waiver}\n")
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    file = pytester.path / "report" / "record.json"
    assert [verdict.outcome for verdict in read(file).cases[0].verdicts] == ["waived"]
    capsys.readouterr()
    for command in ("report", "merge", "comment"):
        assert main([command, str(file)]) == 0
        assert "is waived up to 1 MB until 2099-01-31" in capsys.readouterr().out
