"""A run whose jobs run elsewhere comes to what it comes to in one process, whatever becomes of the jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.plugin.fleet_run import FleetRun
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import read
from tests.plugin.engine_here import EngineHere
from tests.plugin.own_recipe import HOOK, ROUND

Project = Callable[..., pytest.Pytester]
BUDGETS = """
version: 1
models:
  classifier:
    factory: weighty:classifier
    data: shop:data
    recipes:
      int8-dynamic: {max_memory: 1 kB}
      round(step=0.001): {min_coverage: 90%, max_flips: 1%, min_speedup: 0.01x}
  broken:
    factory: shop:raises
    data: shop:data
    recipes:
      int8-dynamic:
"""
WEIGHTY = """
import os, pathlib, shop
HERE = pathlib.Path(__file__).parent
def classifier():
    assert len((HERE / "weights.bin").read_bytes()) == 5_000_000
    with open(os.environ["TORCH_LOADED"], "a") as log:
        print(HERE, os.environ.get("OMP_NUM_THREADS"), len(os.sched_getaffinity(0)), file=log)
    return shop.classifier()
"""
TESTS = """
import os
import pytest

def test_that_measures_nothing_runs_where_pytest_was_called():
    assert "PYTEST_HERE" not in os.environ or os.getcwd() == os.environ["PYTEST_HERE"]

@pytest.mark.model_budget(max_size="1 kB")
def test_live(modelopt):
    modelopt("shop:classifier", "int8-dynamic", data="shop:data")
"""


@pytest.fixture
def fleet_project(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.Pytester:
    """With a recipe of conftest.py and weights that git ignores."""
    pytester = project(BUDGETS, timed=True)
    pytester.makeconftest(ROUND + HOOK)
    pytester.makepyfile(weighty=WEIGHTY, test_it=TESTS)
    (pytester.path / "weights.bin").write_bytes(bytes(5_000_000))
    (pytester.path / ".gitignore").write_text("*.bin\n", encoding="utf-8")
    monkeypatch.setenv("TORCH_LOADED", str(tmp_path / "loaded"))
    monkeypatch.setenv("PYTEST_HERE", str(pytester.path))
    return pytester


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[EngineHere]]:
    """Takes the place of Ray's; gives those that runs have made."""

    def use(loses: dict[tuple[str, int], int] | None = None) -> list[EngineHere]:
        made: list[EngineHere] = []

        def make(self: FleetRun) -> EngineHere:
            made.append(EngineHere(tmp_path / f"copy{len(made)}", self._project(), loses or {}))
            return made[-1]

        monkeypatch.setattr(FleetRun, "_engine", make)
        return made

    return use


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Any]:
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", *arguments)
    return result, read(pytester.path / "report" / "record.json")


def exact(case: Case) -> tuple[object, ...]:
    """What repeats, the outcomes of all verdicts among it."""
    figures = case.variant and (case.variant.memory_bytes, case.variant.size_bytes, case.variant.score)
    verdicts = [(each.limit, each.outcome) for each in case.verdicts]
    return case.id, case.limits, figures, case.coverage, case.drop, case.error and case.error.stage, verdicts


def test_the_record_is_that_of_a_run_in_one_process(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, expected = run(fleet_project)
    alone.assert_outcomes(passed=2, failed=3)
    loaded = Path(os.environ["TORCH_LOADED"])
    loaded.unlink()
    engines = engine()
    result, record = run(fleet_project, "--modelopt-ray", "auto")
    result.assert_outcomes(passed=2, failed=3)
    [used] = engines
    assert [job.tests for job, _ in used.submitted] == [
        ("budgets.yaml::classifier::int8-dynamic", "budgets.yaml::classifier::round(step=0.001)"),
        ("budgets.yaml::broken::int8-dynamic",),
        ("test_it.py::test_live",),
    ]
    assert list(map(exact, record.cases)) == list(map(exact, expected.cases))
    assert record.project, "by which a later run may go on from it"
    assert replace(record, cases=(), started="", project="") == replace(expected, cases=(), started="")
    lines = set(loaded.read_text(encoding="utf-8").splitlines())
    assert lines == {f"{used.copy} {os.environ.get('OMP_NUM_THREADS')} {len(os.sched_getaffinity(0))}"}


def test_a_job_that_is_lost_runs_again_without_what_came_to_its_end(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    """Lost with the second test half told, once it is known to be set up."""
    engines = engine({("classifier", 1): 4})
    result, record = run(fleet_project, "--modelopt-ray", "auto", "budgets.yaml", "-k", "classifier")
    result.assert_outcomes(passed=1, failed=1)
    [used] = engines
    [(first, nowhere), (second, avoided)] = used.submitted
    assert nowhere is None
    assert avoided is not None
    assert avoided.name == "machine 1"
    assert second.tests == first.tests[1:]
    assert len(record.cases) == 2
    note = "classifier was lost on machine 1 (its machine was switched off): 1 test of it run again (1 of 2)"
    assert record.notes == (note,)
    assert record.complete
    result.stdout.fnmatch_lines([f"modelopt: {note}", f"NOTE {note}"])


def test_a_job_that_is_lost_three_times_is_red(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    engine({("test_it.py", attempt): 0 for attempt in (1, 2, 3)})
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=1, failed=1)
    [case] = record.cases
    assert case.error.message.startswith("test_it.py was lost on machine 3 (its machine was switched off), for the 3rd")
    assert [limit.name for limit in case.limits] == ["max_size"]


AT_THE_TEST = "import os\ndef pytest_runtest_call(item):\n    if 'live' in item.name:"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os\ndef pytest_runtest_call(item):\n    if 'live' in item.name: os._exit(7)\n", "ended with status 7"),
        (
            "import os\ndef pytest_runtest_call(item):\n    if 'live' in item.name: os.kill(os.getpid(), 9)\n",
            "by signal 9",
        ),
        (
            "import os\ndef pytest_collection_modifyitems(config, items):\n"
            "    if config.rootpath.name == 'copy0': items.clear()\n",
            "did not collect it: the project is another one there",
        ),
    ],
    ids=["exits", "is killed", "collects nothing"],
)
def test_what_ends_the_pytest_of_a_job_is_told_of_its_tests(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]], code: str, why: str
) -> None:
    fleet_project.makeconftest(ROUND + HOOK + code)
    engine()
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=1, failed=1)
    [case] = record.cases
    assert why in case.error.message


def test_a_run_that_the_first_failure_ended_is_gone_on_with(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    engines = engine()
    result, record = run(fleet_project, "--modelopt-ray", "auto", "-x", "budgets.yaml")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    [first] = record.cases
    assert len(record.planned) == 3
    assert list(engines[0].told(0.0)) == [], "nothing runs on"

    goes_on = ("--modelopt-resume", "report/record.json", "budgets.yaml")
    result, whole = run(fleet_project, "--modelopt-ray", "auto", *goes_on)
    result.assert_outcomes(passed=1, failed=2)
    assert [test for job, _ in engines[1].submitted for test in job.tests] == list(record.planned[1:])
    assert whole.cases[0] == first, "the figures of the first run, its times among them"
    assert whole.project == record.project
    assert whole.environment == record.environment
    assert whole.other_machines == ()

    result, again = run(fleet_project, *goes_on)  # without a fleet, and with nothing left to measure but an error
    result.assert_outcomes(passed=1, failed=2)
    assert again.cases[:2] == whole.cases[:2]

    with (fleet_project.path / "shop.py").open("a", encoding="utf-8") as module:
        module.write("# another one\n")
    refused = fleet_project.runpytest("--modelopt", *goes_on)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*record.json: files of the project have changed since; run without it"])


@pytest.mark.parametrize(
    ("file", "why"),
    [("none.json", "none.json: No such file or directory"), ("shop.py", "shop.py: this is not a JSON record*")],
)
def test_what_cannot_be_gone_on_with_is_named(fleet_project: pytest.Pytester, file: str, why: str) -> None:
    result = fleet_project.runpytest("--modelopt", "--modelopt-resume", file)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--modelopt-resume: *{why}"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-n", "2"), "--modelopt-ray does not go together with -n: pytest-xdist would place the tests, too"),
        (("--modelopt-against", "HEAD"), "--modelopt-against"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_runs(
    fleet_project: pytest.Pytester, arguments: tuple[str, ...], why: str
) -> None:
    result = fleet_project.runpytest("--modelopt", "--modelopt-ray", "auto", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert why in result.stderr.str() + result.stdout.str()
