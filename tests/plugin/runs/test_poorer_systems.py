"""A gate where the system has little: no `/proc`, no affinity, no process groups, no `resource`.

Workers without a fork server: `tests/measuring/controller/test_process.py`. Each feature alone: `tests/test_system.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case

# Run by each Python process of the run before all else. What is taken away is what Windows and macOS lack; of /proc the
# module that asks for it is told that it lies elsewhere.
POORER = """
import os, signal, sys
from pathlib import Path

sys.modules["resource"] = None
for name in ("getuid", "setpgid", "getpgid", "killpg", "sched_getaffinity", "sched_setaffinity", "sched_yield",
             "getloadavg", "waitid", "O_CLOEXEC"):
    delattr(os, name)
del signal.SIGRTMIN

from pytest_modelopt import system

system.PROC, system.fcntl = Path("/nowhere"), None  # filelock has a way of its own on Windows
"""
LIMITS = (
    "{max_memory: 1 MiB, max_size: 1 MiB, max_accuracy_drop: 10 pp, min_speedup: 0.01x, max_latency: 1 s, "
    "max_process_memory: 1 GiB}"
)


def test_each_limit_has_its_verdict_or_the_reason_why_there_is_none(
    project: Callable[..., pytest.Pytester], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(one_case(LIMITS), timed=True)
    (pytester.path / "sitecustomize.py").write_text(POORER, encoding="utf-8")
    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{root}")
    result = pytester.runpytest_subprocess("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    (case,) = read(pytester.path / "report" / "record.json").cases
    assert case.error is None, result.stdout.str()
    assert {verdict.limit.name: verdict.outcome for verdict in case.verdicts} == dict.fromkeys(
        ["max_memory", "max_size", "max_accuracy_drop", "min_speedup", "max_latency", "max_process_memory"],
        "pass",
    )
