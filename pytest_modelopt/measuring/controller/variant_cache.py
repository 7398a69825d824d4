"""A variant that several comparisons share: measured once, with a worker that lives until another takes its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.variant import Variant


class Kept:
    """A place for one variant, at all of its operating points: one worker goes from one to the next. What goes wrong
    with it is kept, too: each comparison with it has the same error."""

    def __init__(self, context: WorkerContext, measuring: Measuring) -> None:
        self._context = context
        self._measuring = measuring
        self.measured: Measured | None = None
        self._elsewhere: list[Measured] = []
        """The same variant at other points, as it was left there, without a worker."""

    def get(self, variant: Variant, name: str, measure: Callable[[Measured], None]) -> Measured:
        """The variant, with a worker that lives, or with its error. `measure` is called where it is not here yet."""
        kept, self.measured = self.measured, None  # nobody finds it half measured, whatever interrupts us here
        if kept is None or kept.variant.first != variant.first or self._context.has_lost(kept.needed_files()):
            self._discard(kept)
            kept = Measured(variant)
            self._guarded(kept, measure)
        elif kept.variant != variant:
            kept = self._moved(kept, variant, name, measure)
        elif kept.error is None and (kept.worker is None or not kept.worker.is_alive):
            kept.worker = None  # a timing that hung ended it: its figures stand, only the process is new
            self._guarded(kept, lambda measured: self._measuring.load(measured, name))
        self.measured = kept
        return kept

    def hand_over(self) -> None:
        """End its worker and leave its files to others."""
        if self.measured is not None:
            self._context.end(self.measured)
        self.measured = None

    def forget(self) -> None:
        """End its worker and remove its files."""
        self._discard(self.measured)
        self.measured = None

    def _discard(self, kept: Measured | None) -> None:
        for each in (*self._elsewhere, kept):
            if each is not None:
                self._context.discard(each)
        self._elsewhere = []

    def _moved(self, kept: Measured, variant: Variant, name: str, measure: Callable[[Measured], None]) -> Measured:
        """The variant at another of its operating points, with the worker that it had."""
        there = next((each for each in self._elsewhere if each.variant == variant), None)
        self._elsewhere = [each for each in self._elsewhere if each is not there]
        if there is None and kept.whole is None and kept.error is not None:
            if kept.error.stage != "memory":  # it cannot be made, or not be scored
                return replace(kept, variant=variant)
            self._context.discard(kept)
            there = Measured(variant)
            self._guarded(there, measure)
            return there
        self._elsewhere.append(kept)
        there = there or kept.elsewhere(variant)
        there.worker, kept.worker = kept.worker, None
        if there.error is None:
            self._guarded(there, lambda measured: self._measuring.stand(measured, name))
        return there

    def _guarded(self, measured: Measured, step: Callable[[Measured], None]) -> None:
        try:
            step(measured)
        except Failed as failed:
            measured.error = failed.error
            self._context.end(measured)
        except BaseException:
            self._context.discard(measured)
            raise
