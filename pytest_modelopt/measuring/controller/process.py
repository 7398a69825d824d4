"""The pytest process's end of a worker: start it, ask it, end it, and say what happened when it does not answer."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pytest_modelopt import system
from pytest_modelopt.measuring import descendants, worker_output
from pytest_modelopt.measuring.controller import preloading
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import main
from pytest_modelopt.results.files.locked_folders import hold

_SOCKET_PATH = 90
"""Bytes of a path that a socket can have everywhere, with some to spare (104 on macOS, 108 on Linux)."""
_DUMP_S = 0.5
_READ_BYTES = 65_536
_LOG_BYTES = 64 * 2**20
"""Of what a worker prints: a log that is longer begins anew, so that it does not fill the disk."""
_UNKNOWN_CODE = 255
"""What multiprocessing says where the fork server that would know the exit status has died."""
_ANSWER_BYTES = 2**30
"""No answer is longer."""
_STALL_S = 60
"""How long a message may stand still of which a part has come, or that nobody takes."""
_HINTS: dict[str, str] = {
    "SIGKILL": " (often the kernel's out-of-memory killer)",
    "SIGSEGV": " (native code used memory that is not its own)",
    "SIGILL": " (native code made for another processor)",
    "SIGABRT": " (native code gave up)",
}
"""What a signal that ends a worker often means."""
_START_S = 120
"""How long the fork server may take for one worker, its own start included."""


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
        self._is_killed = False
        if variant.recipe is not None and variant.recipe.imports_compiler:
            preload(preloading.COMPILER)
        if preloading.libraries.drop_unfit(variant):
            _forget_fork_server()
        context = _context()
        self._connection, theirs = context.Pipe()
        system.end_stalls(self._connection, _STALL_S)
        self._process = context.Process(
            target=main.main, args=(theirs, variant, str(self._output_file)), name=f"modelopt-{name}", daemon=True
        )
        try:
            _start(self._process)
        except (OSError, EOFError) as error:  # EOFError: the fork server died meanwhile
            self._connection.close()
            raise WorkerFailed(f"no worker process could be started: {type(error).__name__}: {error}", "") from None
        finally:
            theirs.close()
        self._server = _fork_server()

    def request(self, operation: str, *, limit_s: float, heartbeat: Heartbeat | None = None, **arguments: Any) -> Any:
        """The answer to one request; `WorkerFailed` when the variant refuses, the process dies, or `limit_s` passes."""
        deadline = time.monotonic() + limit_s
        try:
            self._connection.send((operation, arguments))
            self._await_answer(deadline, operation, limit_s, heartbeat)
            answer = self._connection.recv_bytes(_ANSWER_BYTES)
        except BlockingIOError:
            left = _named(self.kill())
            why = f"the worker stopped in the middle of a message about `{operation}` and was ended{left}"
            raise WorkerFailed(why, self.output()) from None
        except (EOFError, ConnectionError):
            raise WorkerFailed(self._cause_of_death(operation), self.output()) from None
        except OSError as error:
            raise WorkerFailed(self._misuse(operation, error), self.output()) from None
        except BaseException:
            # Whatever interrupts us here (Ctrl-C, a time limit on the test) leaves an answer unread: it would be taken
            # for the answer to the next request.
            self.kill()
            raise
        status, value = self._read(answer, operation)
        if status == "failed":
            raise WorkerFailed(value, self.output())
        return value

    def _read(self, answer: bytes, operation: str) -> tuple[str, Any]:
        try:
            # Not untrusted: the worker runs the same code of the user's that this process could run.
            status, value = pickle.loads(answer)  # noqa: S301
        except Exception as error:
            raise WorkerFailed(self._misuse(operation, error), self.output()) from None
        return status, value

    def _misuse(self, operation: str, error: Exception) -> str:
        why = (
            "the model's code wrote into the pipe between the worker and pytest, and the worker was "
            f"ended{_named(self.kill())}"
        )
        return f"the worker's answer to `{operation}` cannot be read ({type(error).__name__}): {why}"

    def _await_answer(self, deadline: float, operation: str, limit_s: float, heartbeat: Heartbeat | None) -> None:
        while not self._connection.poll(0):
            left = deadline - time.monotonic()
            if left <= 0:
                self._dump_stacks()
                ended = self.kill()
                raise WorkerFailed(
                    f"the worker did not finish `{operation}` within {limit_s:.3g} s (`step_limit`) and was ended"
                    + _named(ended),
                    self.output(),
                )
            ready = wait([self._connection, self._process.sentinel], timeout=min(left, 0.25))
            if self._process.sentinel in ready and not self._connection.poll(0):
                raise EOFError
            if ready:
                continue
            self._shorten_log()
            if heartbeat is not None:
                heartbeat()

    def _cause_of_death(self, operation: str) -> str:
        self._process.join(5)
        code = self._process.exitcode
        is_orphan = code == _UNKNOWN_CODE and self._server is not None and not _lives(self._server)
        left = _named(self.kill())
        if code is None or code == main.CLOSED:
            why = "the model's code closed files that it had not opened, or replaced the process"
            return f"the worker's pipe to pytest was closed during `{operation}`, and it was ended: {why}{left}"
        during = f"the worker process died during `{operation}`"
        if is_orphan:
            why = "the process that starts all workers (multiprocessing's fork server) was killed meanwhile"
            return f"{during}: {why}, by the model's code or for want of memory{left}"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"{during}: ended by {name}{_HINTS.get(name, '')}{left}"
        return f"{during}: exit status {code}{left}"

    def _shorten_log(self) -> None:
        with contextlib.suppress(OSError):
            if self._output_file.stat().st_size > _LOG_BYTES:
                os.truncate(self._output_file, 0)

    def _dump_stacks(self) -> None:
        """Let a worker that hangs write down where it is, until its log does not grow any more."""
        if system.DUMP is None or self.pid is None:
            return
        with contextlib.suppress(OSError):
            os.kill(self.pid, system.DUMP)
            size, deadline = -1, time.monotonic() + _DUMP_S
            while size != self._output_file.stat().st_size and time.monotonic() < deadline:
                size = self._output_file.stat().st_size
                time.sleep(0.1)

    def output(self) -> str:
        """The last lines that the worker printed, as they are told."""
        try:
            with self._output_file.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _READ_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        return worker_output.last_lines(text)

    @property
    def pid(self) -> int | None:
        found: int | None = self._process.pid
        return found

    @property
    def is_alive(self) -> bool:
        return bool(self._process.is_alive())

    def has_running(self) -> tuple[str, ...]:
        """The command lines of what it has started and what runs by now."""
        return descendants.running(self.pid) if self.pid is not None and not self._is_killed else ()

    def close(self) -> tuple[str, ...]:
        """End the process: politely, then by force; the command lines of what it left running."""
        with contextlib.suppress(OSError, ValueError):
            self._connection.send(("stop", {}))
        self._process.join(1)
        left = self.kill()
        with contextlib.suppress(OSError, ValueError):
            self._connection.close()
        return left

    def kill(self) -> tuple[str, ...]:
        """End it by force, and all that it has started; the command lines of what it left running."""
        if self.pid is None:
            return ()
        ended: tuple[str, ...] = ()
        if self._process.is_alive():
            if not self._is_killed:
                ended = descendants.end_group(self.pid)
            self._process.kill()
            self._process.join(5)
        if self._is_killed:  # its number may be another process's by now
            return ()
        self._is_killed = True
        if self._process.exitcode == _UNKNOWN_CODE:  # a fork server without other workers ends before it tells
            _lives(self.pid)
        return (*ended, *descendants.end_left(self.pid))


def preload(*modules: str) -> None:
    """Let the fork server import `COMPILER` or `METRICS`, from the next worker on."""
    added = sorted(set(modules).difference(preloading.PRELOAD))
    if added:
        preloading.PRELOAD[1:1] = added
        _forget_fork_server()


def preload_libraries(found: Sequence[str], variant: Variant) -> None:
    """Let the fork server import what a worker of `variant` had to, from the next worker on, if that pays."""
    if preloading.libraries.add(found, variant):
        _forget_fork_server()


def _named(left: tuple[str, ...]) -> str:
    if not left:
        return ""
    count = f"{len(left)} process{'es'[: 2 * (len(left) > 1)]}"
    return f"; it left {count} running, ended now: {descendants.listed(left)}"


def _start(process: Any) -> None:
    """Start a worker, by a new fork server where the old one has died or does not answer, or its socket has gone, as
    with a temporary folder that something cleans."""
    try:
        _start_in_time(process)
    except (OSError, EOFError):
        preloading.libraries.drop()  # what they leave behind may be why
        _forget_fork_server()
        _start_in_time(process)


def _start_in_time(process: Any) -> None:
    watch = threading.Timer(_START_S, _kill_fork_server)
    watch.daemon = True
    watch.start()
    try:
        with worker_environment(), _without_main_module(), _folder_for_a_socket():
            process.start()
    finally:
        watch.cancel()


def _fork_server() -> int | None:
    found: int | None = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return found


def _kill_fork_server() -> None:
    server = _fork_server()
    if server is not None:
        with contextlib.suppress(OSError):
            os.kill(server, system.KILL)


def _lives(process: int) -> bool:
    """A process that ends closes its files a moment before it is seen to have ended."""
    deadline = time.monotonic() + 1
    while system.is_running(process):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _forget_fork_server() -> None:
    """The next worker starts another one. It lives on as long as one of its workers does."""
    server: Any = getattr(forkserver, "_forkserver", None)
    if getattr(server, "_forkserver_alive_fd", None) is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_pid = server._forkserver_alive_fd = server._forkserver_address = None


_sockets: list[str] = []


def _private_folder() -> str:
    """A folder of this process whose path a socket can have; a new one where it has gone."""
    if not _sockets or not os.path.isdir(_sockets[-1]):  # noqa: PTH112
        tempfile.tempdir = None  # what was found before may have gone
        parents = [Path(tempfile.gettempdir()), *map(Path, ("/tmp", "/var/tmp", "/dev/shm"))]
        fits = [each for each in parents if len(os.fsencode(each)) + 50 < _SOCKET_PATH and os.access(each, os.W_OK)]
        _sockets.append(str(hold("s", fits[0] if fits else None).path))
    return _sockets[-1]


@contextlib.contextmanager
def _folder_for_a_socket() -> Iterator[None]:
    """A private folder for what multiprocessing binds meanwhile: `TMPDIR` may be long, and the folder that
    multiprocessing made for other uses may have gone."""
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    before = config.get("tempdir")
    config["tempdir"] = _private_folder()
    try:
        yield
    finally:
        config["tempdir"] = before


def _context() -> Any:
    """The fork server where the platform has one (workers must not inherit pytest's threads), else spawn."""
    if not system.has_fork_server():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloading.PRELOAD)
    return context


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Set the workers' environment variables, unless the user has, while the fork server or a worker starts."""
    # Libraries import matplotlib where it is installed, and that makes a folder in the user's home unless it has one.
    wanted = main.WORKER_ENVIRONMENT | {main.PLOT_FOLDER: f"{_private_folder()}/matplotlib"}
    added = {key: value for key, value in wanted.items() if key not in os.environ}
    if preloading.libraries.names:
        added[main.LIBRARIES] = " ".join(preloading.libraries.names)
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
