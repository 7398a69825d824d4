"""The timing of one case: pairs of blocks of calls, and of fresh processes where a limit asks for these."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from pytest_modelopt.measuring.controller.launches import start_again
from pytest_modelopt.measuring.controller.load_times import IsOpen as IsLoadingOpen
from pytest_modelopt.measuring.controller.load_times import NotLoaded, time_loading
from pytest_modelopt.measuring.controller.machine import LockUnavailable
from pytest_modelopt.measuring.controller.paired_timing import IsOpen, Listener, NotTimed, TimingPlan, time_pairs
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, Progress, WorkerContext
from pytest_modelopt.results.case import CaseError, MeasuredCase
from pytest_modelopt.results.timed_pairs import PHASES, TimedCall, Timing
from pytest_modelopt.statistics.timing import LAUNCHES


class CaseTiming:
    """Of two measured variants; what cannot be timed is told in the measurement of the second."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def time(
        self, case: MeasuredCase, original: Measured, optimized: Measured, is_open: IsOpen
    ) -> Mapping[TimedCall, Timing]:
        """Nothing, with the reason in the variant's measurement, where others time on this machine without an end, or
        where repeated calls would not time the model."""
        name = case.name
        phases = () if optimized.variant.generation is None else PHASES
        plan = replace(self._plan(optimized), single_calls=asks(case, "max_p95_latency"), phases=phases)

        def launch(number: int) -> tuple[Worker, Worker]:
            if number > 1:
                start = time.monotonic()
                for measured in (original, optimized):
                    label = measured.variant.label
                    self._context.progress.step(name, f"starting the {label} again, for launch {number} of {LAUNCHES}")
                    start_again(self._context, measured)
                optimized.seconds["launch"] = optimized.seconds.get("launch", 0.0) + time.monotonic() - start
            self._context.progress.step(name, "timing in pairs")
            assert original.worker is not None
            assert optimized.worker is not None
            return original.worker, optimized.worker

        try:
            return time_pairs(launch, plan, is_open, _Shown(self._context.progress))
        except (LockUnavailable, NotTimed) as error:
            for figure in ("timing", *phases):
                _lacks(optimized, figure, error)
            return {}
        except WorkerFailed as failed:
            raise Failed(CaseError("timing", failed.message, failed.output)) from None

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
