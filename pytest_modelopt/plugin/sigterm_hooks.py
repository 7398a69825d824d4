"""The hooks that end a run at SIGTERM as at Ctrl-C, in the process with the terminal and in pytest-xdist's workers."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.termination import Terminated, Termination
from pytest_modelopt.plugin.keys import SESSION


class Ending:
    """Registered for one run, before anything is started that would have to be ended."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._termination = Termination()
        self._termination.install()
        config.add_cleanup(self._termination.remove)
        self._workers: list[Any] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        self._workers.append(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if node in self._workers:
            self._workers.remove(node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """pytest-xdist asks its workers to end and kills them ten seconds later, as `docker stop` does with all. Before
        a session has started, as while the base is set up, pytest calls no later hook: the record must say it now."""
        self._termination.is_ending = True
        run = self._config.stash.get(SESSION, None)
        if run is not None:
            run.update_report()
        if isinstance(excinfo.value, Terminated):
            for node in self._workers:
                process = getattr(getattr(node.gateway, "_io", None), "popen", None)  # None on another machine
                if process is not None:
                    with contextlib.suppress(OSError):
                        process.send_signal(signal.SIGTERM)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._termination.is_ending = True
