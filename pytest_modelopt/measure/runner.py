"""Measures cases: one worker per variant, the original's kept for all recipes of its model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_modelopt.measure.comparing import compare, slices
from pytest_modelopt.measure.fresh_processes import measure_process_memory
from pytest_modelopt.measure.launches import start_again
from pytest_modelopt.measure.machine import LockUnavailable
from pytest_modelopt.measure.process import Worker, WorkerFailed
from pytest_modelopt.measure.referee import Lacking, Listener, TimingPlan, time_pairs
from pytest_modelopt.measure.replies import Answers, Loaded, Memory, TooFewExamples
from pytest_modelopt.measure.variant import Variant
from pytest_modelopt.measure.workshop import Failed, Measured, Progress, StepLimits, Workshop
from pytest_modelopt.record.answers import Interval
from pytest_modelopt.record.model import Case, CaseError, Environment, Measurement, Stage, Timing
from pytest_modelopt.record.observations import Observations
from pytest_modelopt.statistics.timing import LAUNCHES

__all__ = ["Progress", "Runner", "StepLimits"]


class Runner:
    """Use `measure` for each case, then `close`. What goes wrong in one variant stays in its case."""

    def __init__(self, limits: StepLimits, progress: Progress) -> None:
        self._limits = limits
        self._progress = progress
        self._workshop = Workshop(limits, progress)
        self._original: Measured | None = None
        self.environment: Environment | None = None

    def new_file(self, purpose: str) -> Path:
        """A path of its own in a folder that only this user can read and that is gone after `close`."""
        return self._workshop.new_file(purpose)

    def measure(self, case: Case, variant: Variant, lacking: Lacking) -> Case:
        """The case with everything that could be measured, or with its error; verdicts are not made here.

        A variant without a recipe is measured beside the original like any other: as a copy of it, in its own worker.
        """
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            error = original.error
            if error.stage != "read":
                error = replace(error, message=f"the original cannot be measured: {error.message}")
            return replace(case, error=error, original=original.measurement)
        optimized = Measured(variant, examples=original.examples)
        try:
            self._measure(optimized, case.name, original.outputs)
            _require_same_data(original, optimized)
            case = self._with_interval(case, original, optimized)
            if _needs_process_memory(case, original, optimized):
                measure_process_memory(self._workshop, original, case.name)
                measure_process_memory(self._workshop, optimized, case.name)
            timing = self._time(case, original, optimized, lacking)
        except Failed as failed:
            return replace(_compared(case, original, optimized), error=failed.error)
        finally:
            self._workshop.discard(optimized)
        return replace(_compared(case, original, optimized), timing=timing)

    @property
    def original_failed(self) -> bool:
        """Whether it is the original for which the last case is in error."""
        return self._original is not None and self._original.error is not None

    def optimize(self, variant: Variant, path: Path, name: str) -> Loaded:
        """Apply the variant's recipe and save the result to `path`. Raises WorkerFailed."""
        measured = Measured(variant)
        try:
            self._load(measured, name)
            assert measured.worker is not None
            assert measured.loaded is not None
            measured.worker.request("save", path=str(path), limit_s=self._limits.step_limit_s)
            return measured.loaded
        except Failed as failed:
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        finally:
            self._workshop.end(measured)

    def forget_original(self) -> None:
        """End the kept worker: the next case has another model."""
        if self._original is not None:
            self._workshop.discard(self._original)
            self._original = None

    def close(self) -> None:
        """End all workers and remove the folder. May be called twice."""
        self.forget_original()
        self._workshop.close()

    # --- one variant -------------------------------------------------------------------------------------------------

    def _measured_original(self, variant: Variant, name: str) -> Measured:
        """The original of `variant`, measured once for all recipes of its model, with a worker that lives."""
        kept, self._original = self._original, None  # nobody finds it half measured, whatever interrupts us here
        if kept is None or kept.variant != variant.original:
            if kept is not None:
                self._workshop.discard(kept)
            kept = Measured(variant.original)
            with self._errors_of(kept):
                self._read(kept, name)
                self._measure(kept, name)
        elif kept.error is None and (kept.worker is None or not kept.worker.is_alive):
            kept.worker = None  # a timing that hung ended it: its figures stand, only the process is new
            with self._errors_of(kept):
                self._load(kept, name)
        self._original = kept
        return kept

    @contextlib.contextmanager
    def _errors_of(self, measured: Measured) -> Iterator[None]:
        try:
            yield
        except Failed as failed:
            measured.error = failed.error
            self._workshop.end(measured)
        except BaseException:
            self._workshop.end(measured)
            raise

    def _read(self, original: Measured, name: str) -> None:
        """Read the data, once for all variants of the model, and its beginning again, each in a worker of its own."""
        if original.variant.data is None:
            return
        path = self._workshop.new_file("examples")
        try:
            self._start(original, name, "reads the data")
            original.examples = self._workshop.ask(original, name, "read", "reading the data", path=str(path))
            original.files += [path, Path(original.examples.hashes_path)]
            self._workshop.end(original)
            self._start(original, name, "reads the data again")
            self._workshop.ask(
                original, name, "read_again", "reading the data again", stage="read", examples=original.examples
            )
        finally:
            self._workshop.end(original)
            again_s = original.seconds.pop("read_again", 0.0)
            original.seconds["read"] = original.seconds.get("read", 0.0) + again_s

    def _measure(self, measured: Measured, name: str, reference: Path | None = None) -> None:
        """Load, then size, memory and score. `measured` keeps what was found, also where a later step fails.

        `reference`: what the original answered, under a metric that compares with it.
        """
        self._load(measured, name)
        assert measured.loaded is not None
        unmeasured: dict[str, str] = {}
        size = self._figure(measured, name, "size", unmeasured)
        memory: Memory = self._figure(measured, name, "memory", unmeasured) or Memory(None, None)
        measured.measurement = Measurement(
            recipe=measured.variant.recipe,
            size_bytes=size,
            weights_bytes=memory.weights_bytes,
            call_peak_bytes=memory.call_peak_bytes,
            score=None,
            examples=0,
            data_fingerprint=None,
            notes=(*measured.loaded.notes, *_data_notes(measured)),
            unmeasured=unmeasured,
            seconds=measured.seconds,
            runtime=memory.runtime,
            reserved_bytes=memory.reserved_bytes,
        )
        if measured.variant.data is None:
            unmeasured["score"] = unmeasured["predictions"] = "no `data` was given"
        else:
            self._score(measured, name, unmeasured, reference)
        self._observe(measured, name)

    def _score(self, measured: Measured, name: str, unmeasured: dict[str, str], reference: Path | None) -> None:
        assert measured.loaded is not None
        assert measured.measurement is not None
        arguments: dict[str, Any] = {} if reference is None else {"reference": str(reference)}
        if reference is None and measured.variant.metric.is_unlabelled:
            measured.outputs = self._workshop.new_file("outputs")
            arguments = {"keep": str(measured.outputs)}
        text = f"scoring the {measured.variant.label}"
        answers: Answers = self._workshop.ask(measured, name, "score", text, **arguments)
        measured.answers = answers
        if answers.predictions is None:
            unmeasured["predictions"] = f"the metric {measured.loaded.metric_name} is not right-or-wrong per example"
        unmeasured.update({figure: why for figure, why in answers.why_not.items() if figure != "interval"})
        measured.measurement = replace(
            measured.measurement,
            score=answers.score,
            examples=answers.examples,
            data_fingerprint=answers.data_fingerprint,
            notes=(*measured.measurement.notes, *answers.notes),
            repeat=answers.repeat,
        )

    def _observe(self, measured: Measured, name: str) -> None:
        """Look at the variant for the doctor. It costs the case nothing where that fails, but it is said."""
        assert measured.measurement is not None
        try:
            seen: Observations = self._workshop.ask(
                measured, name, "observe", f"looking at the {measured.variant.label}", stage="compare"
            )
        except Failed as failed:
            seen = Observations(unobserved={"everything": failed.error.message})
        measured.measurement = replace(measured.measurement, observations=seen)
        if measured.worker is None or not measured.worker.is_alive:
            measured.worker = None
            self._load(measured, name)

    def _load(self, measured: Measured, name: str) -> None:
        variant = measured.variant
        self._start(measured, name, f"runs the {variant.label}")
        loaded: Loaded = self._workshop.ask(
            measured, name, "load", f"loading the {variant.label}", examples=measured.examples
        )
        if variant.recipe is not None:
            optimized: Loaded = self._workshop.ask(measured, name, "optimize", f"optimizing with {variant.recipe}")
            loaded = replace(loaded, notes=(*loaded.notes, *optimized.notes), coverage=optimized.coverage)
        measured.loaded = loaded

    def _start(self, measured: Measured, name: str, what_it_does: str) -> None:
        """Give it a fresh worker, the first of which is asked for the environment."""
        self._progress.step(name, f"starting a worker that {what_it_does}")
        start = time.monotonic()
        self._workshop.start(measured)
        measured.seconds["start"] = measured.seconds.get("start", 0.0) + time.monotonic() - start
        if self.environment is None:
            self.environment = self._workshop.ask(
                measured, name, "environment", "starting the first worker", stage="start"
            )

    def _figure(self, measured: Measured, name: str, stage: Stage, unmeasured: dict[str, str]) -> Any:
        """A figure that a limit may need or not: where the worker cannot give it, the reason stands in its place."""
        try:
            return self._workshop.ask(measured, name, stage, f"measuring the {stage} of the {measured.variant.label}")
        except Failed as failed:
            if measured.worker is None or not measured.worker.is_alive:
                raise
            unmeasured[stage] = failed.error.message
            return None

    # --- the comparison ----------------------------------------------------------------------------------------------

    def _with_interval(self, case: Case, original: Measured, optimized: Measured) -> Case:
        """The case with the interval of its drop, or with the reason for none; as it is where each answer is right or
        wrong, since the bounds of that follow from the counts."""
        before, after = original.answers, optimized.answers
        if before is None or after is None or (before.correct is not None and after.correct is not None):
            return case
        why_not = before.why_not.get("interval") or after.why_not.get("interval")
        if why_not is None:
            text = "resampling the examples"
            sides: dict[str, Any] = {"before": before.summands, "after": after.summands, "width": after.width}
            found: Interval | str = self._workshop.ask(optimized, case.name, "interval", text, stage="score", **sides)
            if isinstance(found, Interval):
                return replace(case, interval=found)
            why_not = found
        return replace(case, no_interval=why_not, interval_lacks_examples=isinstance(why_not, TooFewExamples))

    def _time(self, case: Case, original: Measured, optimized: Measured, lacking: Lacking) -> Timing | None:
        """None, with the reason in the variant's measurement, where others time on this machine without an end."""
        name = case.name
        plan = TimingPlan(
            self._limits.time_limit_s, self._limits.step_limit_s, optimized.variant.seed, optimized.variant.threads
        )

        def launch(number: int) -> tuple[Worker, Worker]:
            if number > 1:
                start = time.monotonic()
                for measured in (original, optimized):
                    label = measured.variant.label
                    self._progress.step(name, f"starting the {label} again, for launch {number} of {LAUNCHES}")
                    start_again(self._workshop, measured)
                optimized.seconds["launch"] = optimized.seconds.get("launch", 0.0) + time.monotonic() - start
            self._progress.step(name, "timing in pairs")
            assert original.worker is not None
            assert optimized.worker is not None
            return original.worker, optimized.worker

        try:
            return time_pairs(launch, plan, lacking, _Shown(self._progress))
        except LockUnavailable as error:
            assert optimized.measurement is not None
            unmeasured = optimized.measurement.unmeasured | {"timing": str(error)}
            optimized.measurement = replace(optimized.measurement, unmeasured=unmeasured)
            return None
        except WorkerFailed as failed:
            raise Failed(CaseError("timing", failed.message, failed.output)) from None


class _Shown(Listener):
    """How timing goes on, in the words of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def pairs(self, count: int, seconds: float, speedup: float) -> None:
        if count % 10 == 0:
            self._progress.beat(f"{count} pairs in {seconds:.0f} s, last {speedup:.2f}x")

    def waiting(self, seconds: float) -> None:
        self._progress.beat(f"waiting for another timing on this machine, {seconds:.0f} s so far")


def _data_notes(measured: Measured) -> tuple[str, ...]:
    """What should be known about the data: it is the same for all variants, and said once."""
    return measured.examples.notes if measured.examples is not None and measured.variant.recipe is None else ()


def _needs_process_memory(case: Case, *sides: Measured) -> bool:
    """Where a limit asks for it, or a foreign runtime leaves no other meter; then of both, by the same one."""
    is_foreign = any(side.measurement is not None and side.measurement.runtime is not None for side in sides)
    return is_foreign or any(limit.name == "max_process_memory" for limit in case.limits)


def _require_same_data(original: Measured, optimized: Measured) -> None:
    before, after = original.answers, optimized.answers
    if before is None or after is None or before.data_fingerprint == after.data_fingerprint:
        return
    message = (
        f"the data differs from one load to the next ({before.examples} and {after.examples} examples, other content "
        "or another order): the data factory must give the same examples each time"
    )
    raise Failed(CaseError("compare", message))


def _compared(case: Case, original: Measured, optimized: Measured) -> Case:
    """The case with both measurements and their comparison, as far as they exist."""
    assert original.loaded is not None
    before, after = original.answers, optimized.answers
    return replace(
        case,
        metric=original.loaded.metric_name,
        higher_is_better=original.loaded.higher_is_better,
        original=original.measurement,
        variant=optimized.measurement,
        coverage=optimized.loaded.coverage if optimized.loaded else None,
        agreement=compare(before, after) if before and after else None,
        slices=slices(before, after, original.examples, higher_is_better=original.loaded.higher_is_better)
        if before and after
        else None,
    )
