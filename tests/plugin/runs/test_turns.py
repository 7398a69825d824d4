"""Which cases of budgets.yaml take turns, and that each keeps its own outcome."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.results import json as record_json

Project = Callable[..., pytest.Pytester]

BUDGETS = """
version: 1
defaults: {time_limit: 300 ms}
models:
  m:
    factory: shop:classifier
    data: shop:data
    original: {max_latency: 10 s}
    recipes:
      int8-dynamic: {min_speedup: 0.001x, max_memory: 1 B}
      low-rank(ratio=0.5): {min_speedup: 0.001x}
      prune-unstructured(ratio=0.5): {max_size: 1 MB}
      bf16: {max_latency: 10 s}
  n:
    factory: shop:convolutions
    data: shop:images
    recipes:
      bf16: {max_latency: 10 s}
"""
CONFTEST = """
import pytest
from pytest_modelopt.plugin.keys import SESSION

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    turns = session.config.stash[SESSION].turns
    print("turns:", *(f"{case.rpartition('::')[2]}({len(turns[case])})" for case in turns))
"""
IN_TURNS = "turns: int8-dynamic(3) low-rank(ratio=0.5)(3) bf16(3)"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], IN_TURNS),
        (["-k", "low or bf16"], "turns: low-rank(ratio=0.5)(2) bf16(2)"),
        (["-k", "low"], "turns:"),
        (["-x"], "turns:"),
        (["--maxfail=2"], "turns:"),
        (["--sw"], "turns:"),
        (["-o", "faulthandler_exit_on_timeout=true"], "turns:"),
    ],
)
def test_cases_of_one_model_with_timed_limits_take_turns(project: Project, arguments: list[str], expected: str) -> None:
    pytester = project(BUDGETS)
    pytester.makeconftest(CONFTEST)
    result = pytester.runpytest("--modelopt", "--collect-only", "-q", *arguments)
    assert [line for line in result.outlines if line.startswith("turns:")] == [expected]


def test_a_case_that_may_be_skipped_takes_no_turn(project: Project) -> None:
    pytester = project(BUDGETS)
    skips = """
def pytest_collection_modifyitems(items):
    for item in items:
        if "low-rank" in item.name:
            item.add_marker(pytest.mark.skip)
"""
    pytester.makeconftest(CONFTEST + skips)
    result = pytester.runpytest("--modelopt", "--collect-only", "-q")
    assert "turns: int8-dynamic(2) bf16(2)" in result.outlines


def test_each_test_keeps_its_own_outcome(project: Project) -> None:
    """Also of a case that is red, of which the others know nothing. They are measured once; who repeats a test, as
    plugins do, has it measured again."""
    pytester = project(BUDGETS)
    pytester.makeconftest("""
import pytest
from pytest_modelopt.plugin.keys import CASES, SESSION

made = []

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    progress = session.config.stash[SESSION].progress
    step = progress.step
    def notes(case, text):
        made.append(case) if text.startswith("optimizing") else None
        step(case, text)
    progress.step = notes

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:
        (case,) = item.stash[CASES]
        before = len(made)
        [again] = item.measure()
        print("made:", before, "again:", len(made) - before, again.timing.pairs != case.timing.pairs)
""")
    result = pytester.runpytest("--modelopt", "-v", "-s", "-k", "m and (int8 or low)", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    lines = [line[line.index("made:") :] for line in result.outlines if "made:" in line]
    assert lines == ["made: 2 again: 1 True", "made: 3 again: 1 True"]


def test_ctrl_c_keeps_the_cases_that_were_measured(project: Project) -> None:
    """Those before the one that it interrupts, though no test has reported them yet."""
    pytester = project(BUDGETS)
    pytester.makeconftest("""
import pytest
from pytest_modelopt.plugin.keys import SESSION

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    progress = session.config.stash[SESSION].progress
    step = progress.step
    def interrupts(case, text):
        if "low-rank" in case and "starting" in text:
            raise KeyboardInterrupt
        step(case, text)
    progress.step = interrupts
""")
    arguments = ("--modelopt", "--modelopt-report=report", "-k", "m and (int8 or low)", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*arguments, no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    record = record_json.read(pytester.path / "report" / "record.json")
    (case,) = record.cases
    assert case.id == "budgets.yaml::m::int8-dynamic"
    assert {verdict.limit.name: verdict.outcome for verdict in case.verdicts}["max_memory"] == "fail"
    assert case.timing is not None, "of the launch that it had"
    assert not record.complete


def test_what_ends_the_first_test_leaves_the_others_to_their_own(project: Project) -> None:
    """They had one launch of several by then: what is judged is timed to the end."""
    pytester = project(BUDGETS)
    pytester.makeconftest("""
import pytest
from pytest_modelopt.plugin.keys import SESSION

made = []

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    progress = session.config.stash[SESSION].progress
    step = progress.step
    def fails_once(case, text):
        if text.startswith("optimizing"):
            made.append(case)
        if "int8" in case and "for launch 2" in text:
            raise ValueError("no space left on device")
        step(case, text)
    progress.step = fails_once

def pytest_sessionfinish():
    print("made:", *sorted(made))
""")
    arguments = ("-s", "-k", "m and (int8 or low)", "-p", "no:cacheprovider", "--modelopt-time-limit", "2 s")
    result = pytester.runpytest("--modelopt", *arguments)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*made: m/int8-dynamic m/low-rank(ratio=0.5) m/low-rank(ratio=0.5)"])
