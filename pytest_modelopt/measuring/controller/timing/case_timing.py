"""The timing of one case: pairs of blocks of calls, and of fresh processes where a limit asks for these."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from pytest_modelopt.measuring.controller.launches import start_again
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.timing import earlier_runs
from pytest_modelopt.measuring.controller.timing.host_lock import LockUnavailable
from pytest_modelopt.measuring.controller.timing.load_times import IsOpen as IsLoadingOpen
from pytest_modelopt.measuring.controller.timing.load_times import NotLoaded, time_loading
from pytest_modelopt.measuring.controller.timing.paired_timing import (
    IsOpen,
    Listener,
    NotTimed,
    PairedTiming,
    TimingPlan,
)
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, Progress, WorkerContext
from pytest_modelopt.results.case import CaseError, MeasuredCase
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.timed_pairs import PHASES, TimedCall, Timing
from pytest_modelopt.statistics.timing import LAUNCHES


class CaseTiming:
    """Of two measured variants; what cannot be timed is told in the measurement of the second."""

    def __init__(self, context: WorkerContext, environment: Callable[[], Environment | None]) -> None:
        """`environment`: the machine and the versions, once a worker runs."""
        self._context, self._environment = context, environment

    def begin(self, case: MeasuredCase, original: Measured, optimized: Measured, is_open: IsOpen) -> OpenTiming:
        phases = () if optimized.variant.generation is None else PHASES
        comparison = earlier_runs.Comparison.of(case.name, (original, optimized), self._environment())
        earlier = {call: runs for call in ("whole", *phases) if (runs := earlier_runs.known(comparison, call))}
        single_calls = asks(case, "max_p95_latency")
        plan = replace(self._plan(optimized), single_calls=single_calls, phases=phases, earlier=earlier)
        return OpenTiming(self._context, case.name, (original, optimized), plan, is_open, comparison)

    def load(self, name: str, original: Measured, optimized: Measured, is_open: IsLoadingOpen) -> Timing | None:
        """Of fresh processes; None, with the reason in the variant's measurement, where that cannot be."""
        start, plan, shown = time.monotonic(), self._plan(optimized), _Shown(self._context.progress)
        try:
            return time_loading(self._context, (original, optimized), name, plan, is_open, shown)
        except (LockUnavailable, NotLoaded, WorkerFailed) as error:
            _lacks(optimized, "loading", error)
            return None
        finally:
            optimized.seconds["loading"] = time.monotonic() - start

    def _plan(self, optimized: Measured) -> TimingPlan:
        variant = optimized.variant
        return TimingPlan(
            variant.time_limit_s or self._context.limits.time_limit_s,
            self._context.limits.step_limit_s,
            variant.seed,
            variant.threads,
        )


class OpenTiming:
    """The paired timing of a case, launch by launch."""

    def __init__(
        self,
        context: WorkerContext,
        name: str,
        sides: tuple[Measured, Measured],
        plan: TimingPlan,
        is_open: IsOpen,
        comparison: earlier_runs.Comparison | None,
    ) -> None:
        self._context, self._name, self._plan, self._comparison = context, name, plan, comparison
        self._original, self._optimized = sides
        self._pairs = PairedTiming(plan, is_open, _Shown(context.progress))
        self._launch = 0
        self._is_timed = True

    def take_launch(self) -> bool:
        """Time the next launch, the first of which is that of the workers that are there; whether it was the last one
        that is needed. Raises Failed."""
        self._launch += 1
        try:
            if self._launch > 1:
                self._start_again()
            self._context.progress.step(self._name, "timing in pairs")
            original, optimized = self._original.worker, self._optimized.worker
            assert original is not None
            assert optimized is not None
            is_last = self._pairs.take_launch(self._launch, original, optimized)
            if is_last:
                earlier_runs.note(self._comparison, self._pairs.timings())
            return is_last
        except (LockUnavailable, NotTimed) as error:
            for figure in ("timing", *self._plan.phases):
                _lacks(self._optimized, figure, error)
            self._is_timed = False
            return True
        except WorkerFailed as failed:
            raise Failed(CaseError("timing", failed.message, failed.output)) from None

    def take_all(self) -> Mapping[TimedCall, Timing]:
        """All launches that are still needed, and what they come to. Raises Failed."""
        while not self.take_launch():
            pass
        return self.timings()

    def timings(self) -> Mapping[TimedCall, Timing]:
        """Nothing, with the reason in the variant's measurement, where others time on this machine without an end, or
        where repeated calls would not time the model."""
        return self._pairs.timings() if self._is_timed else {}

    def _start_again(self) -> None:
        start = time.monotonic()
        for measured in (self._original, self._optimized):
            text = f"starting the {measured.variant.label} again, for launch {self._launch} of {LAUNCHES}"
            self._context.progress.step(self._name, text)
            start_again(self._context, measured)
        seconds = self._optimized.seconds
        seconds["launch"] = seconds.get("launch", 0.0) + time.monotonic() - start


class _Shown(Listener):
    """How timing goes on, in the words of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def pairs(self, count: int, seconds: float, speedup: float) -> None:
        if count % 10 == 0:
            self._progress.beat(f"{count} pairs in {seconds:.0f} s, last {speedup:.2f}x")

    def waiting(self, seconds: float) -> None:
        self._progress.beat(f"waiting for another timing on this machine, {seconds:.0f} s so far")


def asks(case: MeasuredCase, *names: str) -> bool:
    """Whether a limit asks for what is measured only then."""
    return any(limit.name in names for limit in case.limits)


def _lacks(measured: Measured, figure: str, why: Exception) -> None:
    assert measured.measurement is not None
    unmeasured = measured.measurement.unmeasured | {figure: str(why)}
    measured.measurement = replace(measured.measurement, unmeasured=unmeasured)
