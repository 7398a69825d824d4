"""Ways in which a run can end: exit status, record, `report`, `merge`, `comment`, summary, JUnit and terminal agree."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest

from pytest_modelopt.cli.main import main

QUICK = ("--modelopt-time-limit=1 ms", "-p", "no:cacheprovider")
IMPORTS = """\
import os
import pytest
import torch
from torch import nn

def measure(modelopt):
    return modelopt(nn.Linear(64, 64).eval(), "int8-dynamic", example_inputs=torch.zeros(1, 64))

"""
BUDGET = "@pytest.mark.model_budget(max_size='1 B')\n"
KEPT = "@pytest.mark.model_budget(max_size='1 MiB')\n"
PASSES = KEPT + "def test_passes(modelopt): measure(modelopt)\n"
FAILS = BUDGET + "def test_fails(modelopt): measure(modelopt)\n"


@dataclass(frozen=True)
class End:
    """One way to end."""

    tests: str
    told: str
    """How summary, comment and terminal begin to tell it, behind the title."""
    counts: str = ""
    status: int = 0
    arguments: tuple[str, ...] = ()
    merged: int | None = None
    """The status of `merge`, whose record is meant to be whole; None: as `report`."""
    failures: int = 0
    """Tests that JUnit holds as failed or in error."""
    cause: str = ""
    """What summary, `report` and comment say of it besides."""


ENDS = {
    "passed": End(PASSES, "passed.", "1 case: 1 passed, 0 failed"),
    "failed": End(FAILS, "FAILED.", "1 case: 0 passed, 1 failed", 1, failures=1),
    "assertion after measuring": End(
        KEPT + "def test_it(modelopt): assert measure(modelopt) is None",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        failures=1,
    ),
    "error": End(
        BUDGET + "def test_it(modelopt): open('no-such-file')",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        failures=1,
    ),
    "error with a fixture that was asked for late": End(
        "def test_it(request): request.getfixturevalue('modelopt'); open('no-such-file')",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        failures=1,
    ),
    "setup": End(
        BUDGET + "def test_it(modelopt, no_such): pass",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        failures=1,
    ),
    "crash": End(
        BUDGET + "def test_it(modelopt): os._exit(3)",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        ("-n1",),
        failures=1,
    ),
    "crash in the first set-up": End(
        "@pytest.fixture\ndef dies(): os._exit(3)\n\n" + BUDGET + "def test_it(dies, modelopt): pass",
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        ("-n1",),
        failures=1,
    ),
    "crash that ends the run": End(
        BUDGET + "def test_it(modelopt): os._exit(3)\n\n" + PASSES,
        "FAILED, PARTIAL: 1 of 2 cases ran.",
        "2 cases: 0 passed, 0 failed, 1 in error, 1 not run",
        1,
        ("-n1", "--max-worker-restart=0"),
        failures=1,
    ),
    "skip": End(
        BUDGET + "def test_it(modelopt): pytest.skip()",
        "NOTHING MEASURED.",
        "1 case: 0 passed, 0 failed, 1 skipped",
        merged=1,
    ),
    "skip of a whole run": End(
        BUDGET + "def test_it(modelopt): pytest.skip()", "NOTHING MEASURED.", "1 case", 1, ("--modelopt-whole",)
    ),
    "xfail": End(
        "@pytest.mark.xfail\n" + BUDGET + "def test_it(modelopt): open('no')",
        "passed.",
        "1 case: 0 passed, 0 failed, 1 xfailed",
    ),
    "xfail of a broken budget": End("@pytest.mark.xfail\n" + FAILS, "passed.", "1 case: 0 passed, 0 failed, 1 xfailed"),
    "xpass": End("@pytest.mark.xfail\n" + PASSES, "passed.", "1 case: 0 passed, 0 failed, 1 xpassed"),
    "strict xpass": End(
        "@pytest.mark.xfail(strict=True)\n" + PASSES,
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        failures=1,
    ),
    "ctrl-c": End(
        BUDGET + "def test_it(modelopt): raise KeyboardInterrupt",
        "INTERRUPTED, PARTIAL: 0 of 1 case ran.",
        status=2,
    ),
    "exit": End(
        BUDGET + "def test_it(modelopt): pytest.exit('x', returncode=0)",
        "FAILED, PARTIAL: 0 of 1 case ran.",
        status=1,
    ),
    "all deselected": End(
        BUDGET + "def test_it(modelopt): pass", "PARTIAL: 0 of 1 case ran.", status=5, arguments=("-k", "nothing")
    ),
    "part deselected": End(
        PASSES + FAILS,
        "PARTIAL: 1 of 2 cases ran.",
        "2 cases: 1 passed, 0 failed, 1 deselected",
        arguments=("-k", "passes"),
        merged=1,
    ),
    "part of a whole run": End(
        PASSES + FAILS,
        "FAILED, PARTIAL: 1 of 2 cases ran.",
        "2 cases: 1 passed, 0 failed, 1 deselected",
        1,
        ("--deselect", "test_it.py::test_fails", "--modelopt-whole"),
    ),
    "-x": End(
        FAILS + PASSES,
        "FAILED, PARTIAL: 1 of 2 cases ran.",
        "2 cases: 0 passed, 1 failed, 1 not run",
        1,
        ("-x",),
        failures=1,
    ),
    "a file that is not collected": End(
        PASSES,
        "FAILED.",
        "1 case: 1 passed",
        1,
        ("--continue-on-collection-errors", "test_it.py", "test_broken.py"),
        failures=1,
        cause="1 file could not be collected, so what it measures is unknown: test_broken.py",
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_all_readers_agree(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], end: End) -> None:
    pytester.makepyfile(test_it=IMPORTS + end.tests, test_broken="import no_such_module")
    arguments = end.arguments if "test_it.py" in end.arguments else (*end.arguments, "test_it.py")
    run = pytester.runpytest_subprocess if "-n1" in arguments or end.status == 2 else pytester.runpytest
    result = run("--modelopt", "--modelopt-report=r", "--junitxml=junit.xml", *QUICK, *arguments)
    assert result.ret == end.status
    result.stdout.fnmatch_lines([f"modelopt: *{end.counts}*"])
    if "PARTIAL" in end.told:
        result.stdout.fnmatch_lines([f"modelopt: *{end.told.removesuffix('.')}*"])
    summary = (pytester.path / "r" / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith(f"**Model budgets: {end.told}** {end.counts}"), summary

    record = str(pytester.path / "r" / "record.json")
    red = int(end.status != 0)
    capsys.readouterr()
    assert main(["report", record]) == red
    report = capsys.readouterr().out
    assert end.counts in report
    assert main(["merge", record]) == (red if end.merged is None else end.merged)
    capsys.readouterr()
    assert main(["comment", record]) == 0
    comment = capsys.readouterr().out
    assert end.told.removesuffix(".") in comment
    assert end.counts in comment
    for told in (summary, " ".join(report.split()), comment):
        assert end.cause in told.replace("\\", "")  # Markdown escapes the underscores of names
    if end.status != 2:  # Ctrl-C leaves JUnit without the test
        suite = ET.parse(pytester.path / "junit.xml").getroot()[0]
        assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) == end.failures


def test_a_run_without_its_baseline_cases_is_not_saved(pytester: pytest.Pytester) -> None:
    """A saved record that lacks cases would make them look new to later runs."""
    pytester.makepyfile(test_it=IMPORTS + PASSES + FAILS)
    result = pytester.runpytest("--modelopt", "--modelopt-save=base.json", *QUICK, "-k", "passes")
    assert result.ret == 0
    assert not (pytester.path / "base.json").exists()
    result.stdout.fnmatch_lines(["*PARTIAL: 1 of 2 cases ran*"])


def test_a_run_that_is_killed_leaves_no_record_of_an_earlier_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=IMPORTS + PASSES)
    arguments = ("--modelopt", "--modelopt-report=r", *QUICK)
    assert pytester.runpytest(*arguments).ret == 0
    record = str(pytester.path / "r" / "record.json")
    assert main(["report", record]) == 0
    pytester.makepyfile(test_it=IMPORTS + KEPT + "def test_passes(modelopt): os._exit(0)\n")
    pytester.runpytest_subprocess(*arguments)
    assert main(["report", record]) == 1


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["one process", "xdist"])
def test_what_fails_without_a_budget_is_no_case(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile(test_it=IMPORTS + "def test_first(): pass\n\ndef test_plain(): os.x\n\n" + PASSES)
    run = pytester.runpytest_subprocess if workers else pytester.runpytest
    result = run("--modelopt", "--modelopt-report=r", *QUICK, *workers)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["modelopt: 1 case: 1 passed, 0 failed;*"])
    (pytester.path / "r" / "summary.md").unlink()
    result = run("--modelopt", "--modelopt-report=r", *QUICK, *workers, "--deselect", "test_it.py::test_passes")
    assert result.ret == 1
    assert not (pytester.path / "r" / "summary.md").exists()
