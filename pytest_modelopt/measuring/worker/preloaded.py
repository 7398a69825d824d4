"""What the fork server imports last: the project's libraries; nothing that it holds will ever be garbage after that.

A worker collects garbage three times before its model is timed. Each time takes 0.15 s where torch and its compiler are
among what is looked through, and copies their pages, which it otherwise shares with all other workers.
"""

import contextlib
import gc
import importlib
import os
import signal
import time
import warnings
from pathlib import Path

from pytest_modelopt import system
from pytest_modelopt.measuring.worker.main import LIBRARIES
from pytest_modelopt.measuring.worker.settings import chosen, settings

_TASKS = system.PROC / "self" / "task"
_END_S = 0.5
"""Threads that have been joined stay visible for a moment."""
_UNCLEAN = 3
"""Exit status of a fork server that cannot be forked any more as if nothing had been imported: another takes its
place, without the libraries."""


def _state() -> tuple[object, ...]:
    """What importing a library must leave as it was, beside threads: it is every worker's."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    return chosen(os.environ), handlers, settings(), Path.cwd()


def threads_at_fork() -> int:
    """How many threads run that a fork would not have, beside this one. Pools that expect forks, as OpenBLAS's (NumPy
    and SciPy have one each), end their threads before a fork and start them again at the next call."""
    if not _TASKS.is_dir():
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads, which are what is looked for
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    deadline = time.monotonic() + _END_S
    while (others := len(list(_TASKS.iterdir())) - 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    return others


def _import_libraries(names: list[str]) -> None:
    before, threads = _state(), threads_at_fork()
    nothing = os.open(os.devnull, os.O_RDWR)
    streams = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):  # what they print is printed by no worker, and is not for the terminal either
        os.dup2(nothing, number)
    for name in names:
        with contextlib.suppress(Exception):  # a worker that needs it will say why
            importlib.import_module(name)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    os.close(nothing)
    if _state() != before or threads_at_fork() > threads:
        os._exit(_UNCLEAN)


if names := os.environ.pop(LIBRARIES, "").split():
    _import_libraries(names)
gc.collect()
gc.freeze()
