"""A job: some tests of the project, run by a pytest of their own on the machine where an engine has placed them.

Its engine calls `run_job` there, and carries what that yields to the process that submitted it. Nothing here knows the
engine, and a plain shared folder would do instead of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_modelopt import system

FOLDER = "PYTEST_MODELOPT_JOB"
"""The environment variable by which pytest knows that it runs a job: the folder with what it is to run."""
ROOT = "\0root"
"""Stands for the project's folder, which is another one on each machine."""
TESTS, EVENTS = "tests.json", "events.jsonl"
PLUGIN = "pytest_modelopt.plugin.fleet_job"
_POLL_S = 0.05
_GRACE_S = 20.0
_TAIL = 4000
"""Characters of pytest's output that explain how it ended."""
_CARRIED = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "PYTEST_", "PYTHONHASHSEED", "PYTHONPATH", "TORCH", "HF_")
"""Variables that a measurement depends on, by how their names begin: those of the submitting process hold. Ray sets the
number of OpenMP's threads."""

Event = dict[str, Any]
"""What a job tells, in plain values: `{"hello": ...}`, `{"report": ...}` for each phase of a test, `{"end": ...}`."""


@dataclass(frozen=True)
class Job:
    """Tests that run one after the other in one process, as those of one model, whose original is measured once."""

    name: str
    tests: tuple[str, ...]
    """Node ids."""
    arguments: tuple[str, ...]
    """Of pytest's command line, with `ROOT` for the project's folder."""
    folder: str
    """Where pytest was called, relative to the project's folder."""
    environment: Mapping[str, str]
    on_gpu: bool = False
    machines: tuple[str, ...] = ()
    """Ids of the machines on which it may run; any of the fleet where none is named."""

    def without(self, tests: Sequence[str]) -> Job:
        """The job with the tests that are left."""
        return replace(self, tests=tuple(test for test in self.tests if test not in tests))


def carried_environment(root: Path) -> dict[str, str]:
    """The variables of this process that hold for its jobs."""
    return {name: value.replace(str(root), ROOT) for name, value in os.environ.items() if name.startswith(_CARRIED)}


def run_job(job: Job, root: Path) -> Iterator[Event]:
    """Run the job's pytest in the copy of the project at `root`, and yield its events as they come, the end last.

    Closing the iterator ends pytest and all that it started.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-modelopt-job-") as name, contextlib.ExitStack() as ending:
        folder = Path(name)
        (folder / TESTS).write_text(json.dumps(job.tests), encoding="utf-8")
        (folder / EVENTS).touch()
        log = ending.enter_context((folder / "output").open("w+b"))
        arguments = [text.replace(ROOT, str(root)) for text in job.arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", PLUGIN, *arguments, f"--rootdir={root}"],
            cwd=root / job.folder,
            env=_environment(job, root, folder),
            stdin=subprocess.PIPE,  # it ends where this process does, however that is ended
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        ending.callback(_end, process)
        yield {"hello": {"host": system.host(), "process": process.pid}}
        with (folder / EVENTS).open(encoding="utf-8") as events:
            yield from _followed(events, lambda: process.poll() is not None)
        log.seek(0)
        yield {"end": process.returncode, "output": log.read().decode("utf-8", "replace")[-_TAIL:]}


def _followed(lines: Any, has_ended: Callable[[], bool]) -> Iterator[Event]:
    """The events of a file that another process writes, until that has ended."""
    begun = ""
    while True:
        is_last = has_ended()
        while line := lines.readline():
            begun += line
            if begun.endswith("\n"):
                yield json.loads(begun)
                begun = ""
        if is_last:
            return
        time.sleep(_POLL_S)


def _environment(job: Job, root: Path, folder: Path) -> dict[str, str]:
    """That of this machine, but for what is carried: an engine's own settings for its tasks do not hold."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CARRIED)}
    carried = {name: value.replace(ROOT, str(root)) for name, value in job.environment.items()}
    return {**kept, **carried, FOLDER: str(folder)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let pytest end its workers; what does not end by itself is killed."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
