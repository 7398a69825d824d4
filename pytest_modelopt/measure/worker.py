"""The worker process: one variant, one loop that answers requests. This shell imports torch only when it must.

A request is `(operation, arguments)`, an answer `("ok", value)` or `("failed", message)`. Everything that the variant's
code prints goes to a file of its own, which the pytest process shows only when the variant fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import sysconfig
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pytest_modelopt.measure.other_tree import enter
from pytest_modelopt.measure.replies import VariantError
from pytest_modelopt.measure.variant import Variant

# Of every worker, unless the user has set them: idle workers must not spin while the other one is timed, and sets must
# iterate in the same order in every run.
WORKER_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "PYTHONHASHSEED": "0"}


def main(connection: Connection, variant: Variant, output_file: str) -> None:
    """Entry point of the process. It ends when told to, or when the pytest process has gone."""
    # A daemon may not have children, but data loaders do. For the pytest process this one stays a daemon.
    multiprocessing.process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # Nor start them as this one was started: the platform's own way is what the user's code knows, and on Linux it
    # needs no second fork server, which would import torch anew, and nothing that can be pickled.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pytest process, which then ends its workers
    _end_with_pytest()
    _redirect_output(output_file)
    warnings.resetwarnings()  # `python -W error` is meant for the tests, not for what a model's code warns about
    if variant.environment:
        os.environ.clear()
        os.environ.update(WORKER_ENVIRONMENT | dict(variant.environment))
    os.chdir(variant.working_directory)
    sys.path[:] = [*variant.import_paths, *(p for p in sys.path if p not in variant.import_paths)]
    if variant.tree is not None:
        enter(variant.tree)
    serve(connection, variant)


def serve(connection: Connection, variant: Variant) -> None:
    """Answer requests until `stop` or the end of the pipe."""
    from pytest_modelopt.measure.bench import Bench

    bench: Bench | None = None
    while True:
        try:
            operation, arguments = connection.recv()
        except (EOFError, OSError):
            return
        if operation == "stop":
            return
        try:
            if bench is None:
                bench = Bench(variant)
            answer: tuple[str, Any] = ("ok", getattr(bench, operation)(**arguments))
        except VariantError as error:
            _print_cause(error)
            answer = ("failed", str(error))
        except BaseException as error:  # SystemExit of a factory, too: it must not look like a crash
            traceback.print_exception(error)
            answer = ("failed", f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(answer)
        if operation == "load":
            gc.collect()


def _print_cause(error: BaseException) -> None:
    """Where the user's code raised what an explained error came from. Of libraries the message has said it all."""
    from pytest_modelopt.recipes.base import RecipeError

    cause = error
    while isinstance(cause, (VariantError, RecipeError)) and cause.__cause__ is not None:
        cause = cause.__cause__
    libraries = (*map(sysconfig.get_path, ("purelib", "platlib", "stdlib")), str(Path(__file__).parents[1]), "<")
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith(libraries)]
    if frames and cause is not error:
        print("".join(traceback.format_list(frames)), end="", file=sys.stderr)
        print("".join(traceback.format_exception_only(cause)).partition("\n")[0], file=sys.stderr)


def _end_with_pytest() -> None:
    """In the middle of a step, too, where the pytest process is killed and cannot end its workers.

    The kernel sends the signal when the other end of the pipe closes that shows whether the pytest process lives.
    """
    parent = multiprocessing.process.parent_process()
    if sys.platform == "linux" and parent is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _redirect_output(output_file: str) -> None:
    """Point standard output and error, those of C code included, to `output_file`, and standard input to nothing."""
    descriptor = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
