"""What the fork server imports last: the project's libraries; nothing that it holds will ever be garbage after that.

A worker collects garbage three times before its model is timed. Each time takes 0.15 s where torch and its compiler are
among what is looked through, and copies their pages, which it otherwise shares with all other workers.
"""

import contextlib
import gc
import importlib
import os
import signal
from pathlib import Path

from pytest_modelopt.measuring.worker.main import LIBRARIES
from pytest_modelopt.measuring.worker.settings import settings

_TASKS = Path("/proc/self/task")
_UNCLEAN = 3
"""Exit status of a fork server that cannot be forked any more as if nothing had been imported: another takes its
place, without the libraries."""


def _state() -> object:
    """What importing a library must leave as it was: threads do not live on in a fork, the rest is every worker's."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    threads = len(list(_TASKS.iterdir())) if _TASKS.is_dir() else 0
    return dict(os.environ), handlers, threads, settings(), Path.cwd()


def _import_libraries(names: list[str]) -> None:
    before = _state()
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
    if _state() != before:
        os._exit(_UNCLEAN)


if names := os.environ.pop(LIBRARIES, "").split():
    _import_libraries(names)
gc.collect()
gc.freeze()
