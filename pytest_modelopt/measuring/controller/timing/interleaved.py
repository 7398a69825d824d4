"""Comparisons of one model that take turns, launch by launch.

A machine has states that last for seconds, and slow one program down more than another. A comparison whose launches lie
one behind the other may see one of them only; with the launches of other comparisons between its own it is spread over
all of their time, at no more cost.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pytest_modelopt.measuring.controller.launches import keep
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.side_by_side import compared
from pytest_modelopt.measuring.controller.timing.case_timing import OpenTiming
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.results.case import CaseError, MeasuredCase

_FREE_SHARE = 4
"""Times the bytes of a saved variant must be free where another one is to be kept beside it."""


@dataclass(frozen=True)
class Waiting:
    """A case of which all is measured but launches that are still to come. Its variant has no worker meanwhile."""

    case: MeasuredCase
    before: Measured
    after: Measured
    timing: OpenTiming
    measure_anew: Callable[[], MeasuredCase]
    """Where its files were lost."""

    def timed(self) -> MeasuredCase:
        return with_times(self.case, self.before, self.after, self.timing)


class Turns:
    """Comparisons of which some are open after their first launch. Use `finish` once all have had it, then `close`."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._waiting: dict[str, Waiting] = {}

    def holds(self, measured: Measured | None) -> bool:
        """Whether the files of a variant are needed by later launches."""
        return any(each.after is measured for each in self._waiting.values())

    def take(self, waiting: Waiting) -> bool:
        """Take the case's first launch, and let it wait for the next one where that is needed; False where the disk has
        no room for its variant, and it cannot wait. Raises Failed."""
        if waiting.timing.take_launch():
            return True
        try:
            saved = [keep(self._context, measured) for measured in (waiting.before, waiting.after)]
        except WorkerFailed as failed:
            raise Failed(CaseError("timing", failed.message, failed.output)) from None
        sizes = [each.model.stat().st_size for each in saved if each.model is not None]
        if shutil.disk_usage(self._context.folder).free < _FREE_SHARE * sum(sizes):
            return False
        self._waiting[waiting.case.id] = waiting
        return True

    def finish(self) -> Iterator[MeasuredCase]:
        """All cases that wait, as each is done: a launch of each in turn until no limit is open."""
        while self._waiting:
            for case_id, each in list(self._waiting.items()):
                found = self._next_launch(each)
                if found is not None:
                    del self._waiting[case_id]
                    self._context.discard(each.after)
                    yield found

    def close(self) -> None:
        """Remove the files of those that were not finished."""
        for each in self._waiting.values():
            self._context.discard(each.after)
        self._waiting = {}

    def _next_launch(self, waiting: Waiting) -> MeasuredCase | None:
        """The case, where this launch was its last one."""
        sides = (waiting.before, waiting.after)
        if any(each.saved is None or self._context.has_lost(each.needed_files()) for each in sides):
            return waiting.measure_anew()
        try:
            return waiting.timed() if waiting.timing.take_launch() else None
        except Failed as failed:
            return replace(compared(waiting.case, *sides), error=failed.error)
        finally:
            self._context.end(waiting.after)


def with_times(case: MeasuredCase, before: Measured, after: Measured, timing: OpenTiming) -> MeasuredCase:
    """The case with both measurements, and with the times of the launches so far."""
    timings = dict(timing.timings())
    return replace(compared(case, before, after), timing=timings.pop("whole", None), phases=timings)
