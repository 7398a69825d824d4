"""A variant that several comparisons share: measured once, with a worker that lives until another takes its place."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.measuring.controller.variant_measurement import Measuring
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.variant import Variant


class Kept:
    """A place for one variant. What goes wrong with it is kept, too: each comparison with it has the same error."""

    def __init__(self, context: WorkerContext, measuring: Measuring) -> None:
        self._context = context
        self._measuring = measuring
        self.measured: Measured | None = None

    def get(self, variant: Variant, name: str, measure: Callable[[Measured], None]) -> Measured:
        """The variant, with a worker that lives, or with its error. `measure` is called where it is not here yet."""
        kept, self.measured = self.measured, None  # nobody finds it half measured, whatever interrupts us here
        if kept is None or kept.variant != variant or self._context.has_lost(kept.needed_files()):
            if kept is not None:
                self._context.discard(kept)
            kept = Measured(variant)
            self._guarded(kept, measure)
        elif kept.error is None and (kept.worker is None or not kept.worker.is_alive):
            kept.worker = None  # a timing that hung ended it: its figures stand, only the process is new
            self._guarded(kept, lambda measured: self._measuring.load(measured, name))
        self.measured = kept
        return kept

    def forget(self) -> None:
        """End its worker and remove its files."""
        if self.measured is not None:
            self._context.discard(self.measured)
            self.measured = None

    def _guarded(self, measured: Measured, step: Callable[[Measured], None]) -> None:
        try:
            step(measured)
        except Failed as failed:
            measured.error = failed.error
            self._context.end(measured)
        except BaseException:
            self._context.discard(measured)
            raise
