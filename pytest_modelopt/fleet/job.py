"""A job: some work of the project, done by a Python process of its own on the machine where an engine has placed it.

Its engine calls `run_job` there, and carries what that yields to the process that submitted it. Nothing here knows the
engine, and a plain shared folder would do instead of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_modelopt import system

FOLDER = "PYTEST_MODELOPT_JOB"
"""The environment variable by which a process knows that it runs a job: the folder with what it is to do."""
ROOT = "\0root"
"""Stands for the project's folder, which is another one on each machine."""
ITEMS, EVENTS = "items.json", "events.jsonl"
AGAIN = 2
"""How often a job that was lost with its machine runs again."""
_POLL_S = 0.05
_GRACE_S = 20.0
_TAIL = 4000
"""Characters of its output that explain how it ended."""
_CARRIED = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "PYTEST_", "PYTHONHASHSEED", "PYTHONPATH", "TORCH", "HF_")
"""Variables that a measurement depends on, by how their names begin: those of the submitting process hold. Ray sets the
number of OpenMP's threads."""

Event = dict[str, Any]
"""What a job tells, in plain values: `{"hello": ...}`, `{"report": ...}` for each phase of a test or `{"trial": ...}`
for each candidate, `{"end": ...}`."""


@dataclass(frozen=True)
class Job:
    """What one process does, item by item: tests of one model, say, whose original is measured once."""

    name: str
    items: tuple[str, ...]
    """Node ids of tests, or texts of recipes."""
    command: tuple[str, ...]
    """The module that runs and its arguments, with `ROOT` for the project's folder."""
    folder: str
    """Where the command was called, relative to the project's folder."""
    environment: Mapping[str, str]
    on_gpu: bool = False
    machines: tuple[str, ...] = ()
    """Ids of the machines on which it may run; any of the fleet where none is named."""

    def without(self, items: Sequence[str]) -> Job:
        """The job with the items that are left."""
        return replace(self, items=tuple(item for item in self.items if item not in items))


class JobHere:
    """The job of this process, as its environment names it."""

    def __init__(self, folder: Path) -> None:
        self.items: list[str] = json.loads((folder / ITEMS).read_text(encoding="utf-8"))
        self._events = folder / EVENTS
        self._started_by = os.dup(0)  # pytest puts another standard input in its place

    @classmethod
    def take(cls) -> JobHere | None:
        """None where this process runs no job. No process that it starts takes itself for the job's."""
        folder = os.environ.pop(FOLDER, "")
        return cls(Path(folder)) if folder else None

    def tell(self, event: Event) -> None:
        with self._events.open("a", encoding="utf-8") as events:
            events.write(json.dumps(event, default=str) + "\n")

    def end_with_whoever_started_us(self) -> None:
        """That process holds the other end of standard input, which ends however it does. SIGTERM ends workers, too."""
        threading.Thread(target=self._await_end, daemon=True).start()

    def _await_end(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self._started_by, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)


def with_root(text: str, root: Path) -> str:
    """An argument of a command line, with `ROOT` for the project's folder where it begins with that."""
    option, equals, value = text.rpartition("=") if text.startswith("-") else ("", "", text)
    is_within = value == str(root) or value.startswith(f"{root}{os.sep}")
    return f"{option}{equals}{ROOT}{value.removeprefix(str(root))}" if is_within else text


def carried_environment(root: Path) -> dict[str, str]:
    """The variables of this process that hold for its jobs."""
    folder = re.compile(rf"{re.escape(str(root))}(?=$|[{re.escape(os.sep + os.pathsep)}])")  # not of `shop` in `shop2`
    return {name: folder.sub(ROOT, value) for name, value in os.environ.items() if name.startswith(_CARRIED)}


def run_job(job: Job, root: Path) -> Generator[Event, None, None]:
    """Run the job's command in the copy of the project at `root`, and yield its events as they come, the end last.

    Closing the iterator ends the process and all that it started.
    """
    with tempfile.TemporaryDirectory(prefix="pytest-modelopt-job-") as name, contextlib.ExitStack() as ending:
        folder = Path(name)
        (folder / ITEMS).write_text(json.dumps(job.items), encoding="utf-8")
        (folder / EVENTS).touch()
        (root / job.folder).mkdir(parents=True, exist_ok=True)  # one without files has not travelled
        log = ending.enter_context((folder / "output").open("w+b"))
        process = subprocess.Popen(
            [sys.executable, "-m", *(text.replace(ROOT, str(root)) for text in job.command)],
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
    """Let the process end its workers; what does not end by itself is killed."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
