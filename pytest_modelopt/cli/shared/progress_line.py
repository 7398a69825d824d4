"""What a command that takes minutes is doing: one line on the terminal's standard error, nothing in a log."""

from __future__ import annotations

import sys

from pytest_modelopt.measuring.controller.timing.paired_timing import Listener


def show(text: str) -> None:
    """In place of what was shown before; empty text wipes it."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)


class Shown(Listener):
    """Progress of measuring, and of timing."""

    def step(self, case: str, text: str) -> None:
        show(f"{case}: {text}")

    def beat(self, detail: str = "") -> None:
        del detail

    def waiting(self, seconds: float) -> None:
        show(f"waiting for another timing on this machine, {seconds:.0f} s so far")
