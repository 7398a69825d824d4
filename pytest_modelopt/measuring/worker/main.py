"""The worker process: one variant, one loop that answers requests. This shell imports torch only when it must.

A request is `(operation, arguments)`, an answer `("ok", value)` or `("failed", message)`. Everything that the variant's
code prints goes to a file of its own, which the pytest process shows only when the variant fails.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import tempfile
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

from pytest_modelopt import system
from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.other_tree import enter
from pytest_modelopt.measuring.worker.watches import asked_providers
from pytest_modelopt.measuring.worker_output import of_the_user

# Of every worker, unless the user has set them: idle workers must not spin while the other one is timed, and sets must
# iterate in the same order in every run. ONNX Runtime and the hub of Hugging Face, which torchmetrics imports, ask for
# their switches once for the process, whoever imports them.
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "PYTHONHASHSEED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
PLOT_FOLDER = "MPLCONFIGDIR"
"""Names the folder that matplotlib writes into."""
LIBRARIES = "PYTEST_MODELOPT_LIBRARIES"
"""Names the modules that the fork server imports beside its own."""
_MESSAGE = 4000
"""Characters of an error's message that are told."""
CLOSED = 113
"""The exit status of a worker whose pipe to the pytest process was closed by the user's code."""


def main(connection: Connection, variant: Variant, output_file: str) -> None:
    """Entry point of the process. It ends when told to, or when the pytest process has gone."""
    # A daemon may not have children, but data loaders do. For the pytest process this one stays a daemon.
    multiprocessing.process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # Nor start them as this one was started: the platform's own way is what the user's code knows, and on Linux it
    # needs no second fork server, which would import torch anew, and nothing that can be pickled.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pytest process, which then ends its workers
    system.lead_group()  # what it starts ends with it
    system.mark_own()
    system.keep_from_programs(connection.fileno())
    _end_with_pytest()
    log = _redirect_output(output_file)
    tempfile.tempdir = None  # the fork server's may have gone, or be another test's
    warnings.resetwarnings()  # `python -W error` is meant for the tests, not for what a model's code warns about
    os.environ.pop(LIBRARIES, None)
    if variant.environment:
        plots = {PLOT_FOLDER: os.environ[PLOT_FOLDER]} if PLOT_FOLDER in os.environ else {}
        os.environ.clear()
        os.environ.update(WORKER_ENVIRONMENT | plots | dict(variant.environment))
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _refuse_to_debug
    os.chdir(variant.working_directory)
    sys.path[:] = [*variant.import_paths, *(p for p in sys.path if p not in variant.import_paths)]
    if variant.tree is not None:
        enter(variant.tree)
    asked_providers.watch()
    try:
        serve(connection, variant, log)
    except Exception as error:
        with contextlib.suppress(Exception):
            log.write("".join(traceback.format_exception(error)))
            log.flush()
        with contextlib.suppress(Exception):
            why = "the project's code has changed something that Python or this plugin needs"
            connection.send(("failed", f"the worker cannot go on: {error_text(error)}; {why}"))
        os._exit(1)


def serve(connection: Connection, variant: Variant, log: TextIO) -> None:
    """Answer requests until `stop` or the end of the pipe."""
    from pytest_modelopt.measuring.worker.bench import Bench
    from pytest_modelopt.optimizing.recipe import RecipeError

    bench: Bench | None = None
    own = os.getpid()
    while True:
        try:
            operation, arguments = connection.recv()
        except EOFError:
            return
        except OSError:
            os._exit(CLOSED)
        if operation == "stop":
            return
        try:
            if bench is None:
                bench = Bench(variant)
            answer: tuple[str, Any] = ("ok", getattr(bench, operation)(**arguments))
        except BaseException as error:  # SystemExit of a factory, too: it must not look like a crash
            _flush()
            is_explained = isinstance(error, VariantError)
            with contextlib.suppress(OSError, ValueError):  # the log was closed
                _print_cause(error, log, (VariantError, RecipeError), is_explained=is_explained)
            answer = ("failed", str(error)[:_MESSAGE] if is_explained else error_text(error))
        _flush()
        if os.getpid() != own:  # forked by the user's code, and came back from there
            os._exit(0)
        try:
            connection.send(answer)
        except OSError:
            os._exit(CLOSED)
        if operation == "load":
            gc.collect()


def _refuse_to_debug(*_: object, **__: object) -> None:
    raise RuntimeError(
        "a worker has no terminal for `breakpoint()`: call the code by itself, or run pytest with PYTHONBREAKPOINT=0"
    )


def _flush() -> None:
    """The user's code may have closed, replaced or removed the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _print_cause(error: BaseException, log: TextIO, ours: tuple[type[Exception], ...], *, is_explained: bool) -> None:
    """Where the user's code raised the error, unless the sentence says so. Of libraries an explained one has said it
    all; of another, without a line of the user's, all is told.
    """
    cause = error
    while isinstance(cause, ours) and cause.__cause__ is not None:
        cause = cause.__cause__
    frames = of_the_user(traceback.extract_tb(cause.__traceback__), lambda frame: frame.filename)
    if frames and is_explained:
        is_told = cause is error or f"({Path(frames[-1].filename).name}:{frames[-1].lineno}: `" in str(error)
        frames = [] if is_told else frames
    if frames:
        log.write("".join(traceback.format_list(frames)))
        log.write("".join(traceback.format_exception_only(cause)).partition("\n")[0] + "\n")
    elif not is_explained:
        log.write("".join(traceback.format_exception(error)))
    log.flush()


def _end_with_pytest() -> None:
    """In the middle of a step, too, where the pytest process is killed and cannot end its workers.

    The kernel sends the signal when the other end of the pipe closes that shows whether the pytest process lives: to
    the worker's whole process group.
    """
    parent = multiprocessing.process.parent_process()
    if parent is not None:
        system.end_with_parent(parent.sentinel)


def _redirect_output(output_file: str) -> TextIO:
    """Point standard output and error, those of C code included, to `output_file`, and standard input to nothing.

    The answer is a stream to the same file that the user's code does not know. Crashes leave their stacks there, and so
    does the signal `system.DUMP`.
    """
    descriptor = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    log = open(descriptor, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123 -- until the process ends
    faulthandler.enable(log, all_threads=True)
    if system.DUMP is not None:
        faulthandler.register(system.DUMP, log, all_threads=True)
    return log
