"""What a run prints, and where: the table, progress, GitHub's summary and annotations; nothing under `-q -q`."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]
RED = "{max_size: 1 kB}"


def test_a_log_has_one_quiet_line_for_each_case_and_then_the_table(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of GitHub there are no annotations."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    result = project(one_case(RED), timed=True).runpytest("--modelopt")
    assert not [line for line in result.outlines if line.startswith("::")]
    result.stdout.fnmatch_lines(
        [
            "modelopt: m/int8-dynamic: *timing * s (* pairs)",
            "*= FAILURES =*",
            "m/int8-dynamic: max_size 1 kB is broken: *. (budgets.yaml:7)",
            "*= model budgets =*",
            "modelopt: FAILED. 1 case: 0 passed, 1 failed",
            "",
            "m",
            "  accuracy on 200 examples; memory and latency of batch 1 (1x64), 1 thread",
            "  verdict *recipe *memory *size *",
            "  ----*",
            "   *original * KiB * KiB*",
            "  ✗ FAIL *int8-dynamic * KiB *✗ * of 0.9766 KiB*",
            "(-v: *coverage, intervals and flips)",
            "modelopt: 0 timed limits; *, torch 2.*",
            "*= short test summary info =*",
            "FAILED budgets.yaml::m::int8-dynamic - max_size 1 kB: * KiB (+*%)",
        ]
    )
    told = " ".join(result.outlines)
    assert told.count("max_size 1 kB is broken") == 1, "the sentence stands once"
    assert told.count("max_size 1 kB: ") == 1, "and what it says in short"


def test_nothing_is_said_under_qq(project: Project) -> None:
    result = project(one_case()).runpytest("--modelopt", "-q", "-q")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*modelopt*")
    result.stdout.no_fnmatch_line("*int8*")


def test_a_terminal_shows_what_is_being_done_and_wipes_it(project: Project) -> None:
    """On a pseudo-terminal: the steps appear behind the test's name, and leave no trace on the screen."""
    pytester = project(one_case())
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--modelopt", "-v"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while chunk := os.read(ours, 65536):
            output += chunk
    os.close(ours)
    assert process.wait(60) == 0
    assert b"optimizing with int8-dynam" in output
    assert b"timing in pairs" in output
    assert output.count(b"\x1b7") == output.count(b"\x1b8\x1b[K") > 0


def test_github_gets_the_summary_and_annotations(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester = project(one_case(RED))
    summary = pytester.path / "step-summary.md"
    summary.write_text("what another step wrote\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    result = pytester.runpytest("--modelopt")
    annotations = [line for line in result.outlines if line.startswith("::")]
    assert len(annotations) == 1
    assert annotations[0].startswith("::error file=budgets.yaml,line=7,title=")
    assert re.search(r"::max_size 1 kB: [\d.]+ KiB \(\+[\d,.]+%25\)$", annotations[0])
    assert result.stdout.str().count("max_size 1 kB is broken") == 1 + annotations[0].count("max_size 1 kB is broken")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("what another step wrote\n")
    assert "**Model budgets: FAILED.**" in text
