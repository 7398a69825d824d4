"""Under pytest-xdist a run comes to what it comes to in one process, and says it once.

One project holds all that could get lost on the way to a worker or back: runs under xdist are slow to start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_modelopt.results.json import read
from tests.plugin.own_recipe import HOOK, ROUND
from tests.plugin.small_project import one_case, with_broken_model

Project = Callable[..., pytest.Pytester]

BUDGETS = with_broken_model(
    "int8-dynamic: {max_memory: 1 kB}", "round(step=0.001): {min_coverage: 90%, max_flips: 1%, min_speedup: 0.01x}"
)
TESTS = """
import pytest
import shop
import torch

@pytest.mark.model_budget(max_size="1 kB")
def test_live(modelopt):
    modelopt("shop:classifier", "int8-dynamic", data="shop:data")

def test_recipe_of_conftest(optimize):
    model = optimize(shop.classifier(), "round(step=0.5)", data=shop.data()).load()
    assert torch.equal(model[0].weight, (shop.classifier()[0].weight * 2).round() / 2)
"""
WRONG_MARKER = "import pytest\n@pytest.mark.model_budget(max_sizes='1 kB')\ndef test_wrong(modelopt): pass\n"


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, Any]:
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", *arguments)
    return result, read(pytester.path / "report" / "record.json")


def exact(record: Any) -> dict[str, Any]:
    return {case.id: (case.variant and case.variant.memory_bytes, case.drop, case.limits) for case in record.cases}


def errors(result: pytest.RunResult) -> list[str]:
    return sorted(line for line in result.outlines if line.startswith("::error"))


def test_the_record_the_table_and_the_annotations_are_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budgets file where pytest does not look by itself, a recipe of conftest.py, and a wrong marker."""
    pytester = project(None, timed=True)
    (pytester.path / ".ci").mkdir()
    (pytester.path / ".ci" / "budgets.yaml").write_text(BUDGETS, encoding="utf-8")
    pytester.makeini("[pytest]\nmodelopt_budgets = .ci/budgets.yaml")
    pytester.makeconftest(ROUND + HOOK)
    (pytester.path / "test_it.py").write_text(TESTS, encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))

    in_one_process, alone = run(pytester)
    in_one_process.assert_outcomes(passed=2, failed=3)
    (pytester.path / "test_wrong.py").write_text(WRONG_MARKER, encoding="utf-8")
    result, together = run(pytester, "-n", "2")
    result.assert_outcomes(passed=2, failed=3, errors=1)
    result.stdout.fnmatch_lines(["*unknown limit 'max_sizes'*max_size*"])
    result.stdout.fnmatch_lines(["*= model budgets =*"])
    result.stdout.fnmatch_lines(["modelopt: FAILED. 5 cases: 1 passed, 2 failed, 2 in error"])
    result.stdout.fnmatch_lines(["*✓ pass *round(step=0.001)*"])
    result.stdout.fnmatch_lines(["modelopt: 1 timed limit;*"])
    summary = result.stdout.str().partition("short test summary info")[2]
    assert "is broken" not in summary, "what is broken stands there in short, from a worker, too"
    assert "FAILED .ci/budgets.yaml::" in summary

    assert len(alone.planned) == 4
    assert sorted(together.planned) == [*sorted(alone.planned), "test_wrong.py::test_wrong"]
    assert together.timed_limits == alone.timed_limits == 1
    assert together.environment == alone.environment
    lost = {"test_wrong.py::test_wrong": (None, None, ())}
    assert exact(together) == exact(alone) | lost
    assert [line for line in errors(result) if "test_wrong" not in line] == errors(in_one_process)
    assert len(errors(result)) == 4


def test_budgets_that_something_ignores_are_an_error_and_not_green(project: Project) -> None:
    pytester = project(one_case())
    pytester.makepyfile(test_it="def test_plain(): pass")
    pytester.makeconftest("collect_ignore = ['budgets.yaml']")
    result = pytester.runpytest("--modelopt", "-n", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*none of the 1 cases of budgets.yaml ran: pytest did not collect it*"])


def test_of_a_run_that_is_interrupted_before_its_tests_are_known_nothing_is_claimed(project: Project) -> None:
    """In one process, before the budgets file is reached; pytest-xdist waits ten seconds for its processes then."""
    pytester = project(one_case())
    pytester.makepyfile(a_test="raise KeyboardInterrupt")
    result = pytester.runpytest_subprocess("--modelopt", "--modelopt-report", "report", "a_test.py", "budgets.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not read(pytester.path / "report" / "record.json").complete
    result.stdout.no_fnmatch_line("*none of the*")


COUNTED = """
import os
from pathlib import Path
import shop

def note(name):
    # The parent of a worker is the fork server of the process of pytest-xdist that started it.
    with Path(__file__).with_name("made").open("a") as file:
        file.write(f"{name} {os.getppid()}\\n")
    return shop.classifier()

def one(): return note("one")
def two(): return note("two")
"""
MODEL = """
  {name}:
    factory: counted:{name}
    data: shop:data
    recipes:
      low-rank(ratio=0.5):
      low-rank(ratio=0.4):
      low-rank(ratio=0.3):
      low-rank(ratio=0.2):
"""


def test_each_model_is_measured_by_one_process(project: Project) -> None:
    """tests/plugin/runs/test_distribution.py shows where other tests go."""
    pytester = project("version: 1\nmodels:" + "".join(MODEL.format(name=name) for name in ("one", "two")))
    pytester.makepyfile(counted=COUNTED)
    result = pytester.runpytest("--modelopt", "--modelopt-time-limit", "1ms", "-n", "2", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=8)
    made = set((pytester.path / "made").read_text(encoding="utf-8").splitlines())
    assert sorted(line.split()[0] for line in made) == ["one", "two"]
    assert len({line.split()[1] for line in made}) == 2
