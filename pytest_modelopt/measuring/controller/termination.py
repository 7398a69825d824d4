"""SIGTERM as Ctrl-C: `timeout`, `docker stop` and CI systems end a run by it, and leave it some seconds to clean up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_AGAIN_S = 2.0
"""`timeout` sends the signal twice, and the second would interrupt the cleaning up. Later ones are meant."""


class Terminated(KeyboardInterrupt):
    """The process was told to end."""


class Termination:
    """While it is installed, SIGTERM raises `Terminated` in the main thread, as SIGINT raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._last = float("-inf")
        self.is_ending = False
        """Whether the process cleans up already, which nothing should interrupt."""

    def install(self) -> None:
        """Only where nobody else handles the signal or ignores it."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handle)

    def remove(self) -> None:
        """What was before, unless somebody has installed another handler since."""
        self._owner = 0  # who kept this handler to call it after their own gets what it would be without us
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._owner:  # a child that a test has forked
            _end_by(number)
        now = time.monotonic()
        if self.is_ending or now - self._last < _AGAIN_S:
            return
        self._last = now
        raise Terminated("ended by SIGTERM")


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises `Terminated` as long as the block runs."""
    termination = Termination()
    termination.install()
    try:
        yield
    finally:
        termination.remove()


def _end_by(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # never reached: the kernel ends the process first
