"""The pytest process's end of a worker: start it, ask it, end it, and say what happened when it does not answer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pytest_modelopt.measure import worker
from pytest_modelopt.measure.variant import Variant

# What every worker needs, imported once in the fork server: a worker then starts in tenths of a second, not in seconds.
# torch imports its compiler (two seconds and more) as soon as the multiply-adds of a model are counted.
PRELOAD = [
    "torch",
    "torch._dynamo",
    "pytest_modelopt.measure.bench",
    "pytest_modelopt.recipes.optimize",
    "pytest_modelopt.measure.preloaded",
]

_OUTPUT_LINES = 20
_LIBRARY_NOISE = re.compile(
    r"[WI]\d{4} \d\d:\d\d:\d\d\.\d+ .*\btorch/|[WI]0000 00:00:\d+|USDT:\d{4}-|INFO: Created TensorFlow Lite"
    r"|WARNING: All log messages before absl|Failed to load .*/torchao/\S+\.so"
)
"""How the lines begin that libraries print about themselves whatever the model is."""
_CONTROL_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class WorkerFailed(Exception):
    """A worker died, hung or refused; `output` holds the last lines that it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.message = message
        self.output = output


Heartbeat = Callable[[], None]
"""Called a few times a second while a worker is busy, so that progress can be shown."""


class Worker:
    """One worker process for one variant. Use `request` until done, then `close`; `close` may be called at any time."""

    def __init__(self, variant: Variant, folder: Path, name: str) -> None:
        self.variant = variant
        self._output_file = folder / f"{name}.log"
        context = _context()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.main, args=(theirs, variant, str(self._output_file)), name=f"modelopt-{name}", daemon=True
        )
        with _worker_environment(), _without_main_module():
            self._process.start()
        theirs.close()

    def request(self, operation: str, *, limit_s: float, heartbeat: Heartbeat | None = None, **arguments: Any) -> Any:
        """The answer to one request; `WorkerFailed` when the variant refuses, the process dies, or `limit_s` passes."""
        deadline = time.monotonic() + limit_s
        try:
            self._connection.send((operation, arguments))
            self._await_answer(deadline, operation, limit_s, heartbeat)
            status, value = self._connection.recv()
        except (EOFError, ConnectionError):
            raise WorkerFailed(self._cause_of_death(operation), self.output()) from None
        except BaseException:
            # Whatever interrupts us here (Ctrl-C, a time limit on the test) leaves an answer unread: it would be taken
            # for the answer to the next request.
            self.kill()
            raise
        if status == "failed":
            raise WorkerFailed(value, self.output())
        return value

    def _await_answer(self, deadline: float, operation: str, limit_s: float, heartbeat: Heartbeat | None) -> None:
        while not self._connection.poll(0):
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise WorkerFailed(
                    f"the worker did not finish `{operation}` within {limit_s:.3g} s (`step_limit`) and was ended",
                    self.output(),
                )
            ready = wait([self._connection, self._process.sentinel], timeout=min(left, 0.25))
            if self._process.sentinel in ready and not self._connection.poll(0):
                raise EOFError
            if heartbeat is not None and not ready:
                heartbeat()

    def _cause_of_death(self, operation: str) -> str:
        self._process.join(5)
        code = self._process.exitcode
        during = f"the worker process died during `{operation}`"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            hint = " (often the kernel's out-of-memory killer)" if -code == signal.SIGKILL else ""
            return f"{during}: ended by {name}{hint}"
        return f"{during}: exit status {code}"

    def output(self) -> str:
        """The last lines that the worker printed, without control sequences."""
        try:
            with self._output_file.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 16_384))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        lines = [line.rstrip() for line in _CONTROL_SEQUENCES.sub("", text).splitlines()]
        return "\n".join([line for line in lines if line and not _LIBRARY_NOISE.match(line)][-_OUTPUT_LINES:])

    @property
    def pid(self) -> int | None:
        found: int | None = self._process.pid
        return found

    @property
    def is_alive(self) -> bool:
        return bool(self._process.is_alive())

    def close(self) -> None:
        """End the process: politely, then by force."""
        with contextlib.suppress(OSError, ValueError):
            self._connection.send(("stop", {}))
        self._process.join(1)
        self.kill()
        with contextlib.suppress(OSError, ValueError):
            self._connection.close()

    def kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
            self._process.join(5)


def _context() -> Any:
    """The fork server where the platform has one (workers must not inherit pytest's threads), else spawn."""
    methods = multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """Set the workers' environment variables, unless the user has, while the fork server or a worker starts."""
    added = {key: value for key, value in worker.WORKER_ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hide `__main__` while a worker starts.

    multiprocessing would import the main module again in every worker: a script that calls `pytest.main()` without a
    guard would then run the whole test session inside each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
