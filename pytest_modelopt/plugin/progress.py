"""Says what is being done: on a terminal beside the test's name, in a log only where a step takes long."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from pytest_modelopt.results.case import Case

_SAVE, _RESTORE_AND_CLEAR = "\x1b7", "\x1b8\x1b[K"
_REFRESH_S = 0.2
_LEAST_ROOM = 12
_LOG_EVERY_S = 30.0
_STEPS = ("start", "load", "optimize", "size", "memory", "score", "process_memory", "launch")


class Silent:
    """Shows nothing: under `-q -q`, and in pytest-xdist's workers, which own no terminal."""

    def step(self, case: str, text: str) -> None: ...

    def beat(self, detail: str = "") -> None: ...

    def done(self) -> None: ...


class _Shown:
    """What both visible kinds know: the case, the step, and since when."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._case = self._text = ""
        self._since = self._shown = time.monotonic()

    def step(self, case: str, text: str) -> None:
        self._case, self._text = case, text
        self._since = time.monotonic()
        self._begin()

    def _begin(self) -> None: ...

    def _write(self, text: str) -> None:
        """To the real standard output: pytest captures what a test writes."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        if capture is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        with capture.global_and_fixture_disabled():
            sys.stdout.write(text)
            sys.stdout.flush()


class OnTerminal(_Shown):
    """Behind the test's name on the same line; wiped before pytest goes on writing there."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._on_screen = False

    def _begin(self) -> None:
        self._show("")

    def beat(self, detail: str = "") -> None:
        if time.monotonic() - self._shown >= _REFRESH_S:
            self._show(detail)

    def done(self) -> None:
        if self._on_screen:
            self._write(_RESTORE_AND_CLEAR)
            self._on_screen = False

    def _show(self, detail: str) -> None:
        self._shown = time.monotonic()
        text = f"{self._text}: {detail or f'{self._shown - self._since:.0f} s'}"
        writer = self._config.get_terminal_writer()
        room = writer.fullwidth - writer.width_of_current_line - 1
        if room >= _LEAST_ROOM:
            self._write((_RESTORE_AND_CLEAR if self._on_screen else "") + _SAVE + text[:room])
            self._on_screen = True


class InLog(_Shown):
    """One line for each half minute that a step takes; nothing for quick ones."""

    def _begin(self) -> None:
        self._shown = self._since

    def beat(self, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._shown >= _LOG_EVERY_S:
            self._shown = now
            more = f", {detail}" if detail else ""
            self._write(f"\nmodelopt: {self._case}: {self._text}, {now - self._since:.0f} s so far{more}\n")

    def done(self) -> None: ...


def case_line(case: Case) -> str:
    """One line about a case that was measured: where its time went."""
    seconds = case.variant.seconds if case.variant else {}
    parts = [f"{step} {seconds[step]:.1f} s" for step in _STEPS if seconds.get(step, 0) >= 0.05]
    if case.timing is not None and case.timing.conditions.waited_s >= 0.5:
        parts.append(f"waiting for another timing {case.timing.conditions.waited_s:.1f} s")
    if case.timing is not None:
        parts.append(f"timing {case.timing.seconds:.1f} s ({len(case.timing.pairs)} pairs)")
    against = f" against {case.base.name}" if case.base is not None else ""
    why = f"no base, {case.base.why}" if case.base is not None and case.base.status != "compared" else "not measured"
    return f"modelopt: {case.name}{against}: {', '.join(parts) or why}"


def for_config(config: pytest.Config) -> Silent | OnTerminal | InLog:
    """The kind that fits this process and its verbosity."""
    if hasattr(config, "workerinput") or config.get_verbosity() <= -2:
        return Silent()
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None and getattr(reporter, "isatty", False):
        return OnTerminal(config)
    return InLog(config)
