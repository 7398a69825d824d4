"""A run whose jobs run elsewhere comes to what it comes to in one process, whatever becomes of the jobs.

Most of its tests are gated and measure nothing, so that no job imports torch; test_fleet_on_ray.py measures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.plugin.fleet_run import FleetRun
from pytest_modelopt.results.json import dumps, read
from pytest_modelopt.results.run_outcome import run_outcome
from tests.plugin.engine_here import EngineHere
from tests.plugin.fleet_exact import exact
from tests.plugin.small_project import with_broken_model

pytest.importorskip("ray", reason="the extra `fleet` is not installed")

Project = Callable[..., pytest.Pytester]
BUDGETS = with_broken_model("int8-dynamic: {max_memory: 1 kB}")
TESTS = """
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent

def test_that_measures_nothing_runs_where_pytest_was_called():
    assert not HERE.name.startswith("copy")

def test_first(modelopt): pass

def test_second(modelopt): pass

@pytest.mark.model_budget(max_size="1 kB")
def test_third(modelopt): pass

@pytest.mark.skip
def test_fourth(modelopt): pass
"""


@pytest.fixture
def fleet_project(project: Project) -> pytest.Pytester:
    pytester = project(BUDGETS)
    pytester.makepyfile(test_it=TESTS)
    return pytester


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[EngineHere]]:
    """Takes the place of Ray's; gives those that runs have made."""

    made: list[EngineHere] = []

    def use(
        loses: dict[tuple[str, int], int] | None = None, architectures: tuple[str, ...] = (), refuses: int = 0
    ) -> list[EngineHere]:
        def make(self: FleetRun) -> EngineHere:
            copy = tmp_path / f"copy{len(made)}"
            made.append(EngineHere(copy, self._project(), loses or {}, architectures=architectures, refuses=refuses))
            return made[-1]

        monkeypatch.setattr(FleetRun, "_engine", make)
        return made

    return use


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Any]:
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", *arguments)
    return result, read(pytester.path / "report" / "record.json")


def test_the_record_is_that_of_a_run_in_one_process(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    alone, expected = run(fleet_project, "test_it.py")
    alone.assert_outcomes(passed=3, failed=1, skipped=1)
    engines = engine()
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    [used] = engines
    [(job, _)] = used.submitted
    assert job.items == tuple(f"test_it.py::test_{name}" for name in ("first", "second", "third", "fourth"))
    assert list(map(exact, record.cases)) == list(map(exact, expected.cases))
    assert record.project, "by which a later run may go on from it"
    assert replace(record, cases=(), started="", project="") == replace(expected, cases=(), started="")
    assert result.outlines[-1].split(" in ")[0] == alone.outlines[-1].split(" in ")[0]


def test_a_job_that_is_lost_runs_again_without_what_came_to_its_end(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    """Lost with the second test half told, once it is known to be set up."""
    engines = engine({("test_it.py", 1): 4})
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=3, failed=1, skipped=1)
    [used] = engines
    [(first, nowhere), (second, avoided)] = used.submitted
    assert nowhere is None
    assert avoided is not None
    assert avoided.name == "machine 1"
    assert second.items == first.items[1:]
    note = "test_it.py was lost on machine 1 (its machine was switched off): 3 tests of it run again (1 of 2)"
    assert record.notes == (note,)
    assert record.complete
    result.stdout.fnmatch_lines([f"modelopt: {note}", f"NOTE {note}"])


def test_a_job_that_is_lost_three_times_is_red(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    engine({("test_it.py", attempt): 0 for attempt in (1, 2, 3)})
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=1, failed=4)
    assert {case.model for case in record.cases} == {"test_first", "test_second", "test_third", "test_fourth"}
    why = "test_it.py was lost on machine 3 (its machine was switched off), for the 3rd"
    assert all(case.error.message.startswith(why) for case in record.cases)
    assert [limit.name for case in record.cases for limit in case.limits] == ["max_size"]


def test_a_cluster_that_refuses_a_job_is_told_of_its_tests(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]]
) -> None:
    engine(refuses=1)
    result = fleet_project.runpytest("--modelopt", "--modelopt-ray", "auto", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--modelopt-ray auto: the partition is full*"])

    engine({("test_it.py", 1): 4}, refuses=2)
    result, record = run(fleet_project, "--modelopt-ray", "auto", "test_it.py")
    result.assert_outcomes(passed=2, failed=3)
    why = "test_it.py was lost on machine 1 (its machine was switched off), and cannot be run again: the partition is "
    assert {case.error.message for case in record.cases if case.model != "test_first"} == {f"{why}full"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import os\ndef pytest_runtest_call(item):\n    if 'third' in item.name: os._exit(7)\n",
            "ended with status 7",
        ),
        (
            "import os\ndef pytest_runtest_call(item):\n    if 'third' in item.name: os.kill(os.getpid(), 9)\n",
            "by signal 9",
        ),
        (
            "import os\ndef pytest_collection_modifyitems(config, items):\n"
            "    if config.rootpath.name == 'copy0': items.clear()\n",
            "did not collect it: the project is another one there: compare what it finds outside of its folder",
        ),
    ],
    ids=["exits", "is killed", "collects nothing"],
)
def test_what_ends_the_pytest_of_a_job_is_told_of_its_tests(
    fleet_project: pytest.Pytester, engine: Callable[..., list[EngineHere]], code: str, why: str
) -> None:
    fleet_project.makeconftest(code)
    engine()
    third = "test_it.py::test_third"
    result, record = run(fleet_project, "--modelopt-ray", "auto", third)
    result.assert_outcomes(failed=1)
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
    assert len(record.planned) == 2
    assert list(engines[0].told(0.0)) == [], "nothing runs on"

    file = fleet_project.path / "report" / "record.json"
    claimed = file.read_text(encoding="utf-8").replace('"text": "1 kB"', '"text": "1 GB"')
    claimed = claimed.replace('"value": 1000.0', '"value": 1000000000.0')
    claimed = claimed.replace('"expected": null', '"expected": {"outcome": "xfailed", "reason": "claimed"}')
    file.write_text(claimed, encoding="utf-8")
    assert read(file).cases[0].expected is not None
    assert read(file).cases[0].limits[0].value == 1e9, "else the limits of the record are not tried"
    goes_on = ("--modelopt-resume", "report/record.json", "budgets.yaml")
    result, whole = run(fleet_project, "--modelopt-ray", "auto", *goes_on)
    result.assert_outcomes(failed=2)
    assert [test for job, _ in engines[1].submitted for test in job.items] == list(record.planned[1:])
    assert whole.cases[0] == first, "the figures of the first run, its times among them"
    assert whole.project == record.project
    assert whole.environment == record.environment
    assert whole.other_machines == ()

    result, again = run(fleet_project, *goes_on)  # without a fleet, and with nothing left to measure but an error
    result.assert_outcomes(failed=2)
    assert again.cases[0] == first

    (fleet_project.path / "report").rename(fleet_project.path / "first")
    elsewhere = ("--modelopt-resume", "first/record.json", "budgets.yaml")
    result, again = run(fleet_project, *elsewhere)  # the record itself is no change of the project
    assert again.cases[0] == first

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
        (("--modelopt-slurm", "../shared"), "--modelopt-ray and --modelopt-slurm are two clusters; a run is measured"),
        (("-n", "2", "--modelopt-resume", "r.json"), "--modelopt-resume does not go together with -n: the processes"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_runs(
    fleet_project: pytest.Pytester, arguments: tuple[str, ...], why: str
) -> None:
    result = fleet_project.runpytest("--modelopt", "--modelopt-ray", "auto", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert why in result.stderr.str() + result.stdout.str()


OF_TARGETS = """
version: 1
targets:
  riscv: {architecture: riscv64, required: true, max_size: 1 B}
  power: {architecture: ppc64le, required: true}
  sparc: {architecture: sparc64, required: true}
  mainframe: {architecture: s390x, min_speedup: 2x}
  any: {cores: 1}
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    recipes:
      int8-dynamic: {max_size: 1 MB}
"""
OTHER_MACHINE = """
import os, platform
if "MACHINE" in os.environ:
    platform.machine = lambda: os.environ["MACHINE"]
"""
"""In every process of a job: what the operating system would say on its machine."""


def test_a_case_is_measured_and_judged_on_a_machine_of_each_target(
    project: Project, engine: Callable[..., list[EngineHere]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(OTHER_MACHINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.delenv("MACHINE", raising=False)
    pytester = project(OF_TARGETS)
    pytester.makepyfile(test_it="def test_idle(modelopt): pass")
    lost = {("classifier on sparc and any", attempt): 0 for attempt in (1, 2, 3)}
    engines = engine(lost, architectures=("ppc64le", "riscv64", "sparc64", "x86_64"))
    result, record = run(pytester, "--modelopt-ray", "auto")
    result.assert_outcomes(failed=1, passed=1)
    kinds = {"riscv": "riscv64", "power": "ppc64le", "sparc": "sparc64"}
    assert {job.name: job.machines for job, _ in engines[0].submitted} == {
        f"{tests} on {kind} and any": (machine,)
        for tests in ("classifier", "test_it.py")
        for kind, machine in kinds.items()
    }
    found = {machine.architecture: case for case in record.cases if (machine := record.machine_of(case))}
    assert {each: [limit.text for limit in case.limits] for each, case in found.items()} == {
        "ppc64le": ["1 MB"],
        "riscv64": ["1 B"],
    }
    assert [verdict.outcome for each in ("ppc64le", "riscv64") for verdict in found[each].verdicts] == ["pass", "fail"]
    assert run_outcome(record).causes == ("red case", "target missing")
    assert record.timed_limits == 1, "that of a machine that is not there, so that jobs elsewhere count as many"
    result.stdout.fnmatch_lines(
        [
            "*also failed: classifier on sparc and any*",
            "*for the 3rd time, so it is not tried again: look for what ends processes there*",
            "FAIL the target sparc (sparc64): no machine of this run is one (machine 1 is *",
            "*original on targets power and any *",
            "*original on targets riscv and any *",
            "*pass*int8-dynamic on targets power and any *",
            "*FAIL*int8-dynamic on targets riscv and any *",
            "NOTE the target mainframe (s390x): no machine of this run is one *; its limits were not checked",
        ]
    )

    goes_on = ("--modelopt-resume", "report/record.json", "budgets.yaml")
    engine(architectures=("ppc64le", "riscv64", "x86_64"))
    result, again = run(pytester, "--modelopt-ray", "auto", *goes_on)
    result.assert_outcomes(failed=1)
    assert engines[1].submitted == [], "the record has it from each target that is there"
    there = {machine.architecture: case for case in again.cases if (machine := again.machine_of(case))}
    assert len(again.cases) == len(there) == 2
    for architecture, case in there.items():
        assert replace(case, machine=0) == replace(found[architecture], machine=0)

    result, here = run(pytester, *goes_on)  # this machine is of the target `any` only, as those are
    result.assert_outcomes(failed=1)
    assert here.cases == again.cases
    assert (here.environment, here.other_machines) == (again.environment, again.other_machines)

    result, only = run(pytester, "--modelopt-ray", "auto", "--modelopt-targets", "power", *goes_on)
    result.assert_outcomes(passed=1)
    assert engines[2].submitted == []
    assert [only.machine_of(case).architecture for case in only.cases] == ["ppc64le"], "what the run is about"

    (pytester.path / "report" / "record.json").write_text(dumps(again), encoding="utf-8")
    engine(architectures=("ppc64le", "riscv64", "sparc64"))
    result, whole = run(pytester, "--modelopt-ray", "auto", *goes_on)
    result.assert_outcomes(failed=1)
    assert {job.machines for job, _ in engines[3].submitted} == {("ppc64le",), ("riscv64",), ("sparc64",)}
    assert {whole.machine_of(case).architecture for case in whole.cases} == set(kinds.values())
    assert run_outcome(whole).causes == ("red case",)


def test_only_cases_of_budgets_yaml_are_taken_from_a_record(
    project: Project, engine: Callable[..., list[EngineHere]]
) -> None:
    """A test may have changed what it measures before it is called; and it would run here, as if it had run there."""
    pytester = project(BUDGETS)
    pytester.makepyfile(
        test_it="""
        import pytest, shop

        @pytest.mark.model_budget(max_size="1 GB")
        def test_measures(modelopt):
            modelopt(shop.classifier(), data=shop.data(), recipe="int8-dynamic")
        """
    )
    engines = engine()
    for goes_on in ((), ("--modelopt-resume", "report/record.json")):
        result, record = run(pytester, "--modelopt-ray", "auto", "test_it.py", *goes_on)
        result.assert_outcomes(passed=1)
        [case] = record.cases
        assert case.error is None
    assert [len(each.submitted) for each in engines] == [1, 1]
