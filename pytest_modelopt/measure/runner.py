"""Measures cases: one worker per variant, the original's kept for all recipes of its model."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pytest_modelopt.measure.process import Worker, WorkerFailed
from pytest_modelopt.measure.referee import Lacking, Listener, TimingPlan, time_pairs
from pytest_modelopt.measure.replies import Answers, Loaded, Memory
from pytest_modelopt.measure.variant import Variant
from pytest_modelopt.record.model import (
    Agreement,
    Case,
    CaseError,
    Environment,
    Measurement,
    ProcessMemory,
    ProcessMeter,
    Stage,
    Timing,
)

PROCESS_RUNS = 3
"""Fresh processes whose peaks make one figure of process memory, so that its spread is known."""


class Progress(Protocol):
    """Told what is being done, so that it can be shown."""

    def step(self, case: str, text: str) -> None:
        """A step of `case` begins."""

    def beat(self, detail: str = "") -> None:
        """The step goes on; `detail` says how far it is."""


@dataclass(frozen=True)
class StepLimits:
    """`time_limit_s` of timing per comparison; `step_limit_s` for any other single request to a worker."""

    time_limit_s: float
    step_limit_s: float


@dataclass
class _Measured:
    """One variant as far as it got: its worker (None once closed), its figures, or the error that ended it."""

    variant: Variant
    worker: Worker | None = None
    loaded: Loaded | None = None
    measurement: Measurement | None = None
    answers: Answers | None = None
    error: CaseError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    saved: _Saved | None = None
    """What further launches start from, once there was one."""


@dataclass(frozen=True)
class _Saved:
    """Files of a variant: the inputs of the measured call, and the optimized model, where it can be saved."""

    inputs: Path
    model: Path | None
    fingerprint: str
    """Of what the model answered when it was saved."""


class _Failed(Exception):
    """Ends the measuring of one variant."""

    def __init__(self, error: CaseError) -> None:
        super().__init__(error.message)
        self.error = error


class Runner:
    """Use `measure` for each case, then `close`. What goes wrong in one variant stays in its case."""

    def __init__(self, limits: StepLimits, progress: Progress) -> None:
        self._limits = limits
        self._progress = progress
        self._folder = Path(tempfile.mkdtemp(prefix="modelopt-"))
        self._workers_started = self._files_named = 0
        self._original: _Measured | None = None
        self.environment: Environment | None = None

    def new_file(self, purpose: str) -> Path:
        """A path of its own in a folder that only this user can read and that is gone after `close`."""
        self._files_named += 1
        return self._folder / f"{purpose}-{self._files_named}.pt"

    def measure(self, case: Case, variant: Variant, lacking: Lacking) -> Case:
        """The case with everything that could be measured, or with its error; verdicts are not made here."""
        original = self._measured_original(variant, case.name)
        if original.error is not None:
            error = replace(original.error, message=f"the original cannot be measured: {original.error.message}")
            return replace(case, error=error, original=original.measurement)
        optimized = _Measured(variant)
        try:
            self._measure(optimized, case.name)
            _require_same_data(original, optimized)
            self._measure_process_memory(case, original, optimized)
            timing = self._time(case.name, original, optimized, lacking)
        except _Failed as failed:
            return replace(_compared(case, original, optimized), error=failed.error)
        finally:
            self._end(optimized)
        return replace(_compared(case, original, optimized), timing=timing)

    def optimize(self, variant: Variant, path: Path, name: str) -> Loaded:
        """Apply the variant's recipe and save the result to `path`. Raises WorkerFailed."""
        measured = _Measured(variant)
        try:
            self._load(measured, name)
            assert measured.worker is not None
            assert measured.loaded is not None
            measured.worker.request("save", path=str(path), limit_s=self._limits.step_limit_s)
            return measured.loaded
        except _Failed as failed:
            raise WorkerFailed(failed.error.message, failed.error.output) from None
        finally:
            self._end(measured)

    def forget_original(self) -> None:
        """End the kept worker: the next case has another model."""
        if self._original is not None:
            self._end(self._original)
            self._original = None

    def close(self) -> None:
        """End all workers and remove the folder. May be called twice."""
        self.forget_original()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- one variant -------------------------------------------------------------------------------------------------

    def _measured_original(self, variant: Variant, name: str) -> _Measured:
        """The original of `variant`, measured once for all recipes of its model, with a worker that lives."""
        kept, self._original = self._original, None  # nobody finds it half measured, whatever interrupts us here
        if kept is None or kept.variant != variant.original:
            if kept is not None:
                self._end(kept)
            kept = _Measured(variant.original)
            with self._errors_of(kept):
                self._measure(kept, name)
        elif kept.error is None and (kept.worker is None or not kept.worker.is_alive):
            kept.worker = None  # a timing that hung ended it: its figures stand, only the process is new
            with self._errors_of(kept):
                self._load(kept, name)
        self._original = kept
        return kept

    @contextlib.contextmanager
    def _errors_of(self, measured: _Measured) -> Iterator[None]:
        try:
            yield
        except _Failed as failed:
            measured.error = failed.error
            self._end(measured)
        except BaseException:
            self._end(measured)
            raise

    def _measure(self, measured: _Measured, name: str) -> None:
        """Load, then size, memory and score. `measured` keeps what was found, also where a later step fails."""
        self._load(measured, name)
        assert measured.loaded is not None
        label = measured.variant.label
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
            notes=measured.loaded.notes,
            unmeasured=unmeasured,
            seconds=measured.seconds,
            runtime=memory.runtime,
        )
        if measured.variant.data is None:
            unmeasured["score"] = unmeasured["predictions"] = "no `data` was given"
            return
        answers: Answers = self._ask(measured, name, "score", f"scoring the {label}")
        measured.answers = answers
        if answers.predictions is None:
            unmeasured["predictions"] = f"the metric {measured.loaded.metric_name} is not right-or-wrong per example"
        measured.measurement = replace(
            measured.measurement,
            score=answers.score,
            examples=answers.examples,
            data_fingerprint=answers.data_fingerprint,
        )

    def _load(self, measured: _Measured, name: str) -> None:
        variant = measured.variant
        self._progress.step(name, f"starting a worker for the {variant.label}")
        start = time.monotonic()
        self._start_worker(measured)
        measured.seconds["start"] = time.monotonic() - start
        if self.environment is None:
            self.environment = self._ask(measured, name, "environment", "starting the first worker", stage="start")
        loaded: Loaded = self._ask(measured, name, "load", f"loading the {variant.label}")
        if variant.recipe is not None:
            optimized: Loaded = self._ask(measured, name, "optimize", f"optimizing with {variant.recipe}")
            loaded = replace(loaded, notes=(*loaded.notes, *optimized.notes), coverage=optimized.coverage)
        measured.loaded = loaded

    def _start_worker(self, measured: _Measured) -> None:
        self._workers_started += 1
        measured.worker = Worker(measured.variant, self._folder, f"worker-{self._workers_started}")

    def _figure(self, measured: _Measured, name: str, stage: Stage, unmeasured: dict[str, str]) -> Any:
        """A figure that a limit may need or not: where the worker cannot give it, the reason stands in its place."""
        try:
            return self._ask(measured, name, stage, f"measuring the {stage} of the {measured.variant.label}")
        except _Failed as failed:
            if measured.worker is None or not measured.worker.is_alive:
                raise
            unmeasured[stage] = failed.error.message
            return None

    def _ask(self, measured: _Measured, name: str, operation: str, text: str, stage: Stage | None = None) -> Any:
        assert measured.worker is not None
        self._progress.step(name, text)
        start = time.monotonic()
        try:
            return measured.worker.request(
                operation, limit_s=self._limits.step_limit_s, heartbeat=lambda: self._progress.beat()
            )
        except WorkerFailed as failed:
            where: Any = stage or operation
            raise _Failed(CaseError(where, failed.message, failed.output)) from None
        finally:
            measured.seconds[operation] = measured.seconds.get(operation, 0.0) + time.monotonic() - start

    def _end(self, measured: _Measured) -> None:
        if measured.worker is not None:
            measured.worker.close()
            measured.worker = None

    # --- process memory ----------------------------------------------------------------------------------------------

    def _measure_process_memory(self, case: Case, original: _Measured, optimized: _Measured) -> None:
        """Where a limit asks for it, or a foreign runtime leaves no other meter: of both, by the same one."""
        sides = (original, optimized)
        is_foreign = any(side.measurement is not None and side.measurement.runtime is not None for side in sides)
        if not is_foreign and all(limit.name != "max_process_memory" for limit in case.limits):
            return
        for side in sides:
            assert side.measurement is not None
            if side.measurement.process_memory is None and "process_memory" not in side.measurement.unmeasured:
                side.measurement = self._with_process_memory(side, side.measurement, case.name)

    def _with_process_memory(self, measured: _Measured, before: Measurement, name: str) -> Measurement:
        """The measurement with the process memory of fresh workers, or with the reason why it has none."""
        model, inputs = self.new_file("process-memory-model"), self.new_file("process-memory-inputs")
        label, start = measured.variant.label, time.monotonic()
        try:
            self._request(measured.worker, name, "save", f"saving the {label}", path=str(model))
            self._request(measured.worker, name, "save_inputs", f"saving the {label}", path=str(inputs))
            runs = [
                self._fresh_run(
                    measured.variant, name, run, model=str(model), inputs=str(inputs), runtime=before.runtime
                )
                for run in range(1, PROCESS_RUNS + 1)
            ]
        except WorkerFailed as failed:
            if measured.worker is None or not measured.worker.is_alive:  # its own worker: what follows needs it
                raise _Failed(CaseError("memory", failed.message, failed.output)) from None
            return replace(before, unmeasured=before.unmeasured | {"process_memory": failed.message})
        finally:
            model.unlink(missing_ok=True)
            inputs.unlink(missing_ok=True)
            measured.seconds["process_memory"] = time.monotonic() - start
        return replace(before, process_memory=ProcessMemory(tuple(peak for peak, _ in runs), runs[0][1]))

    def _fresh_run(self, variant: Variant, name: str, run: int, **arguments: Any) -> tuple[int, ProcessMeter]:
        self._workers_started += 1
        worker = Worker(variant, self._folder, f"worker-{self._workers_started}")
        try:
            text = f"process memory of the {variant.label}, run {run} of {PROCESS_RUNS}"
            answer: tuple[int, ProcessMeter] = self._request(worker, name, "process_memory", text, **arguments)
            return answer
        finally:
            worker.close()

    def _request(self, worker: Worker | None, name: str, operation: str, text: str, **arguments: Any) -> Any:
        assert worker is not None
        self._progress.step(name, text)
        return worker.request(
            operation, limit_s=self._limits.step_limit_s, heartbeat=lambda: self._progress.beat(), **arguments
        )

    # --- the comparison ----------------------------------------------------------------------------------------------

    def _time(self, name: str, original: _Measured, optimized: _Measured, lacking: Lacking) -> Timing:
        plan = TimingPlan(
            self._limits.time_limit_s, self._limits.step_limit_s, optimized.variant.seed, optimized.variant.threads
        )

        def launch(number: int) -> tuple[Worker, Worker]:
            if number > 1:
                start = time.monotonic()
                self._start_again(original, name, number)
                self._start_again(optimized, name, number)
                optimized.seconds["launch"] = optimized.seconds.get("launch", 0.0) + time.monotonic() - start
            self._progress.step(name, "timing in pairs")
            assert original.worker is not None
            assert optimized.worker is not None
            return original.worker, optimized.worker

        try:
            return time_pairs(launch, plan, lacking, _Shown(self._progress))
        except WorkerFailed as failed:
            raise _Failed(CaseError("timing", failed.message, failed.output)) from None

    def _start_again(self, measured: _Measured, name: str, launch: int) -> None:
        """Replace the worker by a fresh one that stands where it stood: for timing, nothing else."""
        self._progress.step(name, f"starting the {measured.variant.label} again, for launch {launch}")
        try:
            if measured.saved is None:
                measured.saved = self._save(measured)
            self._end(measured)
            self._start_worker(measured)
            if measured.saved.model is None or not self._is_reloaded(measured, measured.saved.model):
                self._make_again(measured)
        except BaseException:
            self._end(measured)  # half made: the next case must not find it
            raise

    def _make_again(self, measured: _Measured) -> None:
        assert measured.worker is not None
        assert measured.saved is not None
        limit_s, beat = self._limits.step_limit_s, self._progress.beat
        measured.worker.request("load", limit_s=limit_s, heartbeat=beat, inputs_file=str(measured.saved.inputs))
        if measured.variant.recipe is not None:
            measured.worker.request("optimize", limit_s=limit_s, heartbeat=beat)

    def _save(self, measured: _Measured) -> _Saved:
        """What another launch starts from: the inputs, and an optimized model, so that nothing is optimized twice.

        The original is made by its factory in each launch, as the team ships it.
        """
        assert measured.worker is not None
        limit_s = self._limits.step_limit_s
        inputs = self.new_file("inputs")
        measured.worker.request("save_inputs", limit_s=limit_s, path=str(inputs))
        if measured.variant.recipe is None:
            return _Saved(inputs, None, "")
        model = self.new_file("model")
        try:
            fingerprint = measured.worker.request("save", limit_s=limit_s, path=str(model))
        except WorkerFailed:
            if not measured.worker.is_alive:
                raise
            return _Saved(inputs, None, "")  # its size could not be measured either, and the table says why
        return _Saved(inputs, model, fingerprint)

    def _is_reloaded(self, measured: _Measured, model: Path) -> bool:
        """Load the saved model into the fresh worker; False, with a note, where it is not what was saved."""
        assert measured.worker is not None
        assert measured.saved is not None
        assert measured.measurement is not None
        saved = measured.saved
        try:
            answers = measured.worker.request(
                "reload", limit_s=self._limits.step_limit_s, path=str(model), inputs_file=str(saved.inputs)
            )
            why = "" if answers == saved.fingerprint else "its answers differ from those before it was saved"
        except WorkerFailed as failed:
            why = failed.message
            if not measured.worker.is_alive:
                self._end(measured)
                self._start_worker(measured)
        if not why:
            return True
        measured.saved = replace(saved, model=None)
        note = f"saved and loaded again it is not the same model: {why}; so it was optimized anew for each launch"
        measured.measurement = replace(measured.measurement, notes=(*measured.measurement.notes, note))
        return False


class _Shown(Listener):
    """How timing goes on, in the words of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def pairs(self, count: int, seconds: float, speedup: float) -> None:
        if count % 10 == 0:
            self._progress.beat(f"{count} pairs in {seconds:.0f} s, last {speedup:.2f}x")

    def waiting(self, seconds: float) -> None:
        self._progress.beat(f"waiting for another timing on this machine, {seconds:.0f} s so far")


def _require_same_data(original: _Measured, optimized: _Measured) -> None:
    before, after = original.answers, optimized.answers
    if before is None or after is None or before.data_fingerprint == after.data_fingerprint:
        return
    message = (
        f"the data differs from one load to the next ({before.examples} and {after.examples} examples, other content "
        "or another order): the data factory must give the same examples each time"
    )
    raise _Failed(CaseError("compare", message))


def _compared(case: Case, original: _Measured, optimized: _Measured) -> Case:
    """The case with both measurements and their comparison, as far as they exist."""
    assert original.loaded is not None
    return replace(
        case,
        metric=original.loaded.metric_name,
        higher_is_better=original.loaded.higher_is_better,
        original=original.measurement,
        variant=optimized.measurement,
        coverage=optimized.loaded.coverage if optimized.loaded else None,
        agreement=_agreement(original.answers, optimized.answers),
    )


def _agreement(before: Answers | None, after: Answers | None) -> Agreement | None:
    if before is None or after is None or before.data_fingerprint != after.data_fingerprint:
        return None
    if before.predictions is None or after.predictions is None or before.correct is None or after.correct is None:
        return None
    return Agreement(
        examples=before.examples,
        right_to_wrong=sum(a > b for a, b in zip(before.correct, after.correct, strict=True)),
        wrong_to_right=sum(a < b for a, b in zip(before.correct, after.correct, strict=True)),
        flips=sum(a != b for a, b in zip(before.predictions, after.predictions, strict=True)),
    )
