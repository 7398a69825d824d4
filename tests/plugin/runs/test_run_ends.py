"""Ways in which a run can end: exit status, record, `report`, `merge`, `comment`, summary, JUnit, terminal and action
agree."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from tests.github.jobs import Job, gate

QUICK = ("--modelopt-time-limit=1 ms", "-p", "no:cacheprovider")
IMPORTS = """\
import os
import pytest

def measure(modelopt):
    import torch  # here: most ends measure nothing, and each of their processes would take two seconds more
    model = torch.nn.Linear(64, 64).eval()
    return modelopt(model, "int8-dynamic", example_inputs=torch.zeros(1, 64))

"""
SKIPPED = "import pytest\npytest.importorskip('no_such_module')\n\n"
BUDGET = "@pytest.mark.model_budget(max_size='1 B')\n"
KEPT = "@pytest.mark.model_budget(max_size='1 MiB')\n"
PASSES = KEPT + "def test_passes(modelopt): measure(modelopt)\n"
FAILS = BUDGET + "def test_fails(modelopt): measure(modelopt)\n"
HANGS = (
    """\
import torch

class Hangs(torch.nn.Linear):
    def forward(self, x):
        import time
        time.sleep(60)

"""
    + BUDGET
    + """\
def test_hangs(modelopt):
    modelopt(Hangs(64, 64).eval(), "int8-dynamic", example_inputs=torch.zeros(1, 64))

"""
)
BY_SIGNAL = """\
import signal
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
    \"\"\"As pytest-timeout does by its method `signal`.\"\"\"
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("Timeout (>0.1s) from pytest-timeout."))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
"""
BY_EXIT = ("-o", "faulthandler_timeout=0.1", "-o", "faulthandler_exit_on_timeout=true")
"""pytest's own, which ends the process from another thread as pytest-timeout does by its method `thread`."""


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
    is_cut: bool = False
    """Whether pytest's process ends at once: it tells nothing, writes no JUnit, and may end with any status."""


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
        "PARTIAL: 0 of 1 case ran.",
        "1 case: 0 passed, 0 failed, 1 skipped",
        merged=1,
    ),
    "skip of a whole run": End(
        PASSES + "@pytest.mark.skip\n" + FAILS,
        "FAILED, PARTIAL: 1 of 2 cases ran.",
        "2 cases: 1 passed, 0 failed, 1 skipped",
        1,
        ("--modelopt-whole",),
        cause="1 of 2 cases was skipped: test_it.py::test_fails",
    ),
    "xfail without a run, of a whole run": End(
        "@pytest.mark.xfail(run=False)\n" + FAILS,
        "passed.",
        "1 case: 0 passed, 0 failed, 1 xfailed",
        arguments=("--modelopt-whole",),
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
    "ctrl-c before the tests are known": End(
        "raise KeyboardInterrupt", "INTERRUPTED.", status=2, merged=2, is_cut=True
    ),
    "exit": End(
        BUDGET + "def test_it(modelopt): pytest.exit('x', returncode=0)",
        "FAILED, PARTIAL: 0 of 1 case ran.",
        status=1,
    ),
    "timeout by a signal": End(
        HANGS, "FAILED.", "1 case: 0 passed, 0 failed, 1 in error", 1, ("-p", "by_signal"), failures=1, cause="Timeout"
    ),
    "timeout that ends the process": End(
        HANGS,
        "INTERRUPTED, PARTIAL: 0 of 1 case ran.",
        "1 case: 0 passed, 0 failed, 1 not run",
        1,
        BY_EXIT,
        is_cut=True,
    ),
    "killed with status 0": End(
        BUDGET + "def test_it(modelopt): os._exit(0)",
        "INTERRUPTED, PARTIAL: 0 of 1 case ran.",
        "1 case: 0 passed, 0 failed, 1 not run",
        is_cut=True,
    ),
    "step limit": End(
        HANGS,
        "FAILED.",
        "1 case: 0 passed, 0 failed, 1 in error",
        1,
        ("--modelopt-step-limit=1s",),
        failures=1,
        cause="within 1 s",
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
    "a file that is skipped, of a whole run": End(
        PASSES,
        "FAILED, PARTIAL: 1 of 2 cases ran.",
        "2 cases: 1 passed, 0 failed, 1 skipped",
        1,
        ("--modelopt-whole", "test_it.py", "test_skipped.py", "test_of_others.py"),
        cause="1 of 2 cases was skipped: test_skipped.py",
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
def test_all_readers_agree(
    pytester: pytest.Pytester, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: End
) -> None:
    pytester.syspathinsert()
    pytester.makepyfile(test_it=IMPORTS + end.tests, test_broken="import no_such_module", by_signal=BY_SIGNAL)
    pytester.makepyfile(test_skipped=SKIPPED + FAILS, test_of_others=SKIPPED + "def test_it(modelopts): pass")
    arguments = end.arguments if "test_it.py" in end.arguments else (*end.arguments, "test_it.py")
    (pytester.path / "r").mkdir()
    for name in ("record.json", "summary.md"):  # an earlier run's do not pass for this one's, however it ends
        (pytester.path / "r" / name).write_text("stale")
    needs_process = "-n1" in arguments or end.status == 2 or end.is_cut
    run = pytester.runpytest_subprocess if needs_process else pytester.runpytest
    result = run("--modelopt", "--modelopt-report=r", "--junitxml=junit.xml", *QUICK, *arguments)
    assert result.ret == end.status
    if not end.is_cut:  # of a narrow terminal it is more than one line
        assert f"modelopt: {end.told} {end.counts}" in " ".join(result.stdout.str().split())
    summary = (pytester.path / "r" / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith(f"**Model budgets: {end.told}** {end.counts}"), summary

    record = str(pytester.path / "r" / "record.json")
    red = int(end.status != 0 or end.is_cut)
    capsys.readouterr()
    assert main(["report", record]) == red
    report = " ".join(capsys.readouterr().out.split())
    assert end.counts in report
    assert main(["merge", record]) == (red if end.merged is None else end.merged)
    capsys.readouterr()
    assert main(["comment", record]) == 0
    comment = capsys.readouterr().out
    assert end.told.removesuffix(".") in comment
    assert end.counts in comment
    for told in (summary, report, comment):
        assert end.cause in told.replace("\\", "")  # Markdown escapes the underscores of names
    if end.status != 2 and not end.is_cut:  # Ctrl-C leaves JUnit without the test
        suite = ET.parse(pytester.path / "junit.xml").getroot()[0]
        assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) == end.failures
    verdict = {0: "passed", 1: "failed"}.get(end.status or red, "error")
    assert action_after(tmp_path, pytester.path / "r", end.status) == (end.status or red, verdict)


def action_after(folder: Path, report: Path, status: int) -> tuple[int, str]:
    """Exit status and output of the action's step, whose pytest leaves this report and ends with this status."""
    python = folder / "python"
    python.write_text(
        f'#!/bin/bash\n[[ $2 == pytest ]] || exec "{sys.executable}" "$@"\ncp -r "$KEPT" "$LEFT"; exit {status}\n'
    )
    python.chmod(0o755)
    job = Job(folder)
    left = job.workspace / "modelopt-report"
    shutil.rmtree(left, ignore_errors=True)
    done = gate(job, {"KEPT": str(report), "LEFT": str(left)}, python=str(python), whole="false")
    assert job.outputs["record"] == str(left / "record.json")
    return done.returncode, job.outputs["verdict"]


def test_what_lf_leaves_out_is_deselected(pytester: pytest.Pytester) -> None:
    """It takes tests out of a file before pytest knows them, and does not read files in which nothing failed."""
    skips = BUDGET + "def test_{0}(modelopt): pytest.skip()\n"
    pytester.makepyfile(test_it=IMPORTS + skips.format("one") + skips.format("two"), test_plain="def test_it(): pass")
    pytester.makepyfile(test_more=IMPORTS + skips.format("three"))
    cache = pytester.mkdir(".pytest_cache") / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text('{"test_it.py::test_one": true}')
    assert pytester.runpytest("--modelopt", "--modelopt-report=r", "--lf").ret == 0
    summary = (pytester.path / "r" / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith(
        "**Model budgets: PARTIAL: 0 of 3 cases ran.** 3 cases: 0 passed, 0 failed, 1 skipped, 2 deselected"
    )


def test_a_run_without_its_baseline_cases_is_not_saved(pytester: pytest.Pytester) -> None:
    """A saved record that lacks cases would make them look new to later runs."""
    pytester.makepyfile(test_it=IMPORTS + PASSES + FAILS)
    result = pytester.runpytest("--modelopt", "--modelopt-save=base.json", *QUICK, "-k", "passes")
    assert result.ret == 0
    assert not (pytester.path / "base.json").exists()
    result.stdout.fnmatch_lines(["*PARTIAL: 1 of 2 cases ran*"])


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["one process", "xdist"])
def test_what_fails_without_a_budget_is_no_case(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile(test_it=IMPORTS + "def test_first(): pass\n\ndef test_plain(): os.x\n\n" + PASSES)
    run = pytester.runpytest_subprocess if workers else pytester.runpytest
    result = run("--modelopt", "--modelopt-report=r", *QUICK, *workers)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["modelopt: passed. 1 case: 1 passed, 0 failed"])
    (pytester.path / "r" / "summary.md").unlink()
    result = run("--modelopt", "--modelopt-report=r", *QUICK, *workers, "--deselect", "test_it.py::test_passes")
    assert result.ret == 1
    assert not (pytester.path / "r" / "summary.md").exists()
