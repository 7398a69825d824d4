"""Measures one variant: starts its worker, reads its data, loads, and takes every figure but its speed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_modelopt.measuring.controller import memory_left
from pytest_modelopt.measuring.controller.fresh_processes import balance_books
from pytest_modelopt.measuring.controller.preloading import COMPILER
from pytest_modelopt.measuring.controller.process import WorkerFailed, preload, preload_libraries
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, Progress, WorkerContext
from pytest_modelopt.measuring.descendants import listed
from pytest_modelopt.measuring.installation import INSTALLED
from pytest_modelopt.measuring.protocol import Answers, Loaded, Memory
from pytest_modelopt.results.case import CaseError, Stage
from pytest_modelopt.results.consistency.small_files import format_small_file
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.observations import Observations
from pytest_modelopt.results.record import Environment

_MODULES_SHOWN = 3
_OF_THE_CALL = ("memory", "process_memory", "timing")
"""Figures that each operating point has of its own."""


class Measuring:
    """What goes wrong in a variant is raised as `Failed`; its `Measured` keeps what was found before."""

    def __init__(self, context: WorkerContext, progress: Progress) -> None:
        self._context = context
        self._progress = progress
        self.environment: Environment | None = None

    def read(self, original: Measured, name: str) -> None:
        """Read the data, once for all variants of the model, and its beginning again, each in a worker of its own."""
        if original.variant.data is None:
            return
        path = self._context.new_file("examples")
        try:
            self.start(original, name, "reads the data")
            original.examples = self._context.ask(original, name, "read", "reading the data", path=str(path))
            beside = (original.examples.hashes_path, original.examples.call_path)
            original.files += [path, *(Path(file) for file in beside if file)]
            self._preload(original)
            self._context.end(original)
            self.start(original, name, "reads the data again")
            self._context.ask(
                original, name, "read_again", "reading the data again", stage="read", examples=original.examples
            )
        finally:
            self._context.end(original)
            again_s = original.seconds.pop("read_again", 0.0)
            original.seconds["read"] = original.seconds.get("read", 0.0) + again_s

    def measure(
        self,
        measured: Measured,
        name: str,
        reference: Path | None = None,
        at_figure: Callable[[Stage], None] = lambda stage: None,
        before_answers: Callable[[], None] = lambda: None,
    ) -> None:
        """Load, then size, memory and score. `measured` keeps what was found, also where a later step fails.

        `reference`: what the original answered, under a metric that compares with it. `at_figure` is called once size,
        memory and score are known, and `before_answers` between the last two, where there is data; what they raise ends
        the measuring.
        """
        self._load(measured, name)
        unmeasured: dict[str, str] = {}
        size = self._figure(measured, name, "size", unmeasured)
        assert measured.loaded is not None
        begun = measured.measurement = Measurement(
            recipe=None if measured.variant.is_original else measured.variant.label,
            size_bytes=size,
            weights_bytes=None,
            call_peak_bytes=None,
            score=None,
            examples=0,
            data_fingerprint=None,
            unmeasured=unmeasured,
            seconds=measured.seconds,
            provenance=measured.loaded.provenance,
            shipped=measured.loaded.shipped,
        )
        if measured.loaded.no_coverage:
            unmeasured["coverage"] = measured.loaded.no_coverage
        at_figure("size")
        measured.measurement = None  # one that fails before its memory is known has no figures
        if not measured.variant.is_at_first:
            self._move(measured, name)
        memory = self._memory(measured, name, unmeasured)
        measured.measurement = replace(
            begun,
            weights_bytes=memory.weights_bytes,
            call_peak_bytes=memory.call_peak_bytes,
            notes=(*measured.loaded.notes, *_call_notes(measured), *_data_notes(measured)),
            runtime=memory.runtime,
            reserved_bytes=memory.reserved_bytes,
            call_memory=memory.call,
        )
        balance_books(self._context, measured, name)
        measured.measurement = _with_told_small(measured.measurement)
        at_figure("memory")
        unmeasured = measured.measurement.unmeasured
        if measured.variant.data is None:
            unmeasured["score"] = unmeasured["predictions"] = "no `data` was given"
        else:
            before_answers()
            self._score(measured, name, unmeasured, reference)
        at_figure("score")
        self._observe(measured, name)
        _name_processes(measured)
        measured.whole = measured.measurement

    def stand(self, measured: Measured, name: str) -> None:
        """Stand at its operating point, in a worker that stood at another one or has ended, and measure what depends
        on the point there, once. `measured` has what was found of it elsewhere."""
        if measured.worker is None or not measured.worker.is_alive:
            measured.worker = None
            self.load(measured, name)
        else:
            self._move(measured, name)
        if measured.measurement is not None:
            return
        whole = measured.whole
        assert whole is not None
        reasons = {figure: why for figure, why in whole.unmeasured.items() if figure not in _OF_THE_CALL}
        memory = self._memory(measured, name, reasons)
        if memory.weights_bytes != whole.weights_bytes and None not in (memory.weights_bytes, whole.weights_bytes):
            self._context.end(measured)  # it keeps something of earlier calls, of which a fresh worker knows nothing
            self.load(measured, name)
            memory = self._memory(measured, name, reasons)
        measured.measurement = replace(
            whole,
            weights_bytes=memory.weights_bytes,
            call_peak_bytes=memory.call_peak_bytes,
            call_memory=memory.call,
            reserved_bytes=memory.reserved_bytes,
            runtime=memory.runtime,
            hidden_bytes=0,
            process_memory=None,
            notes=(*(note for note in whole.notes if note != format_small_file(whole)), *_call_notes(measured)),
            unmeasured=reasons,
            seconds=measured.seconds,
        )
        balance_books(self._context, measured, name)
        found = measured.measurement
        told = {figure: why for figure, why in found.unmeasured.items() if figure != "size"}
        size = {"size": whole.unmeasured["size"]} if "size" in whole.unmeasured else {}
        notes = tuple(dict.fromkeys(found.notes))
        found = replace(found, size_bytes=whole.size_bytes, unmeasured=told | size, notes=notes)
        measured.measurement = _with_told_small(found)

    def _memory(self, measured: Measured, name: str, unmeasured: dict[str, str]) -> Memory:
        return self._figure(measured, name, "memory", unmeasured) or Memory(None, None)

    def _score(self, measured: Measured, name: str, unmeasured: dict[str, str], reference: Path | None) -> None:
        assert measured.loaded is not None
        assert measured.measurement is not None
        arguments: dict[str, Any] = {} if reference is None else {"reference": str(reference)}
        generates = measured.variant.generation is not None and measured.scored_by is None
        if reference is None and (measured.variant.metric.is_unlabelled or generates):
            measured.outputs = self._context.new_file("outputs")
            arguments = {"keep": str(measured.outputs)}
        text = f"scoring the {measured.variant.label}"
        if measured.scored_by is None:
            answers: Answers = self._context.ask(measured, name, "score", text, **arguments)
        else:
            answers = self._score_by(measured.scored_by, measured, name, text, arguments)
        measured.answers = answers
        if answers.predictions is None and answers.tokens is None:
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

    def _score_by(self, head: Measured, measured: Measured, name: str, text: str, arguments: dict[str, Any]) -> Answers:
        """The answers of another revision's variant, scored by the metric of head."""
        path = self._context.new_file("outputs")
        try:
            fingerprint: str = self._context.ask(measured, name, "outputs", text, stage="score", path=str(path))
            answers: Answers = self._context.ask(
                head, name, "score_outputs", text, stage="score", path=str(path), examples=head.examples, **arguments
            )
        finally:
            path.unlink(missing_ok=True)
        return replace(answers, data_fingerprint=fingerprint)

    def _observe(self, measured: Measured, name: str) -> None:
        """Look at the variant for the doctor. It costs the case nothing where that fails, but it is said."""
        assert measured.measurement is not None
        text = f"looking at the {measured.variant.label}"
        try:
            seen: Observations = self._context.ask(measured, name, "observe", text, stage="compare")
        except Failed as failed:
            seen = Observations(unobserved={"everything": failed.error.message})
        measured.measurement = replace(measured.measurement, observations=seen)
        self._stand_again(measured, name)

    def look_into(self, measured: Measured, name: str) -> None:
        """Look at what its file and its peak are made of, once. As `_observe`."""
        before = measured.measurement
        assert before is not None
        seen = before.observations
        if seen is None or seen.makeup is not None or "makeup" in seen.unobserved:
            return
        text = f"looking for what the {measured.variant.label} spends"
        peak = before.call_peak_bytes
        try:
            found = self._context.ask(measured, name, "makeup", text, stage="compare", peak_bytes=peak)
            seen = replace(seen, makeup=found)
        except Failed as failed:
            seen = replace(seen, unobserved=seen.unobserved | {"makeup": failed.error.message})
        measured.measurement = replace(before, observations=seen)
        self._stand_again(measured, name)

    def try_inputs(self, original: Measured, candidate: Measured, name: str) -> None:
        """Look whether a candidate whose answers are wrong is right on inputs that are prepared otherwise. As
        `_observe`."""
        before = candidate.measurement
        assert before is not None
        seen = before.observations or Observations()
        path = self._context.new_file("answers")
        text = f"looking for what is wrong with the answers of the {candidate.variant.label}"
        try:
            self._context.ask(original, name, "few_answers", text, stage="compare", path=str(path))
            found = self._context.ask(candidate, name, "try_inputs", text, stage="compare", path=str(path))
            seen = replace(seen, other_inputs=found)
        except Failed as failed:
            seen = replace(seen, unobserved=seen.unobserved | {"other_inputs": failed.error.message})
        finally:
            path.unlink(missing_ok=True)
        candidate.measurement = replace(before, observations=seen)
        for measured in (original, candidate):
            self._stand_again(measured, name)

    def _stand_again(self, measured: Measured, name: str) -> None:
        """Give it another worker where looking at it has ended its own."""
        if measured.worker is None or not measured.worker.is_alive:
            measured.worker = None
            self.load(measured, name)

    def load(self, measured: Measured, name: str) -> None:
        """Make it in a fresh worker, which then stands at its operating point."""
        self._load(measured, name)
        if not measured.variant.is_at_first:
            self._move(measured, name)

    def _move(self, measured: Measured, name: str) -> None:
        """Go with its worker to its operating point."""
        variant = measured.variant
        file = measured.inputs.get(variant.workload)
        called, notes = self._context.ask(
            measured,
            name,
            "move",
            f"calling the {variant.label} as at {variant.workload}",
            stage="memory",
            point=variant.point,
            inputs_file=None if file is None else str(file),
            examples=measured.examples,
        )
        self._keep_inputs(measured, name, variant.workload)
        assert measured.loaded is not None
        called = replace(called, notes=(*called.notes, *notes))
        measured.loaded = replace(measured.loaded, called=called)

    def _keep_inputs(self, measured: Measured, name: str, workload: str) -> None:
        """Of a variant that comes back to the point, and of the base, which is given the same."""
        if measured.variant.points and workload not in measured.inputs:
            path = self._context.new_file("inputs")
            measured.files.append(path)
            self._context.ask(measured, name, "save_inputs", "saving the inputs of the call", "load", path=str(path))
            measured.inputs[workload] = path

    def _load(self, measured: Measured, name: str) -> None:
        variant, first = measured.variant, measured.variant.first.workload
        if why := memory_left.of_its_files(variant):
            raise Failed(CaseError("load", why))
        self.start(measured, name, f"runs the {variant.label}")
        loaded: Loaded = self._context.ask(
            measured,
            name,
            "load",
            f"loading the {variant.label}",
            examples=measured.examples,
            inputs_file=str(measured.inputs[first]) if first in measured.inputs else None,
            scores=measured.scored_by is None,
        )
        self._keep_inputs(measured, name, first)
        if loaded.has_compiler:
            preload(COMPILER)
        self._preload(measured)
        if measured.scored_by is not None and measured.scored_by.loaded is not None:
            known = measured.scored_by.loaded
            loaded = replace(loaded, metric_name=known.metric_name, higher_is_better=known.higher_is_better)
        if variant.recipe is not None:
            optimized: Loaded = self._context.ask(measured, name, "optimize", f"optimizing with {variant.label}")
            if loaded.provenance is not None:  # of the original's file, of which the recipe has made something else
                loaded = replace(loaded, notes=(), provenance=None)
            loaded = replace(loaded, notes=(*loaded.notes, *optimized.notes), coverage=optimized.coverage)
            loaded = replace(loaded, no_coverage=optimized.no_coverage, is_uncounted=optimized.is_uncounted)
            loaded = replace(loaded, shipped=optimized.shipped, digest=optimized.digest)
        if variant.tree is not None:
            self._require_its_own_files(measured, name)
        measured.loaded = loaded

    def _preload(self, measured: Measured) -> None:
        """Spare the next workers what this one had to import. Where it cannot say, its next step tells why."""
        with contextlib.suppress(WorkerFailed):
            preload_libraries(self._context.request(measured.worker, "imported"), measured.variant)

    def _require_its_own_files(self, measured: Measured, name: str) -> None:
        """A variant of another revision that runs head's code would be compared with itself."""
        found: tuple[str, ...] = self._context.ask(
            measured, name, "taken_from_head", "looking at what it used", stage="load"
        )
        if found:
            measured.is_mixed = True
            raise Failed(CaseError("load", _told_mixed(found)))

    def start(self, measured: Measured, name: str, what_it_does: str) -> None:
        """Give it a fresh worker, the first of which is asked for the environment, and the first on a GPU for that."""
        self._progress.step(name, f"starting a worker that {what_it_does}")
        start = time.monotonic()
        self._context.start(measured)
        measured.seconds["start"] = measured.seconds.get("start", 0.0) + time.monotonic() - start
        lacks_gpu = self.environment is not None and self.environment.gpu is None
        if self.environment is None or (lacks_gpu and measured.variant.device != "cpu"):
            self.environment = self._context.ask(
                measured, name, "environment", "starting the first worker", stage="start"
            )

    def _figure(self, measured: Measured, name: str, stage: Stage, unmeasured: dict[str, str]) -> Any:
        """A figure that a limit may need or not: where the worker cannot give it, the reason stands in its place."""
        try:
            return self._context.ask(measured, name, stage, f"measuring the {stage} of the {measured.variant.label}")
        except Failed as failed:
            if measured.worker is None or not measured.worker.is_alive:
                raise
            unmeasured[stage] = failed.error.message
            return None


def _name_processes(measured: Measured) -> None:
    """Note what it, or the reading of its data, has started and not ended: that costs no figure, and may be no aim."""
    assert measured.measurement is not None
    now = measured.worker.has_running() if measured.worker is not None else ()
    found = tuple(dict.fromkeys((*measured.left, *now)))
    if found:
        note = f"processes that it has started and not ended are ended with its worker: {listed(found)}"
        measured.measurement = replace(measured.measurement, notes=(*measured.measurement.notes, note))


def _with_told_small(measurement: Measurement) -> Measurement:
    told = format_small_file(measurement)
    return replace(measurement, notes=(*measurement.notes, told)) if told else measurement


def _call_notes(measured: Measured) -> tuple[str, ...]:
    called = measured.loaded.called if measured.loaded is not None else None
    return () if called is None else called.notes


def _data_notes(measured: Measured) -> tuple[str, ...]:
    """What should be known about the data: it is the same for all variants, and said once."""
    return measured.examples.notes if measured.examples is not None and measured.variant.is_original else ()


def _told_mixed(found: tuple[str, ...]) -> str:
    more = f" and {len(found) - _MODULES_SHOWN} more" if found[_MODULES_SHOWN:] else ""
    shown = ", ".join(found[:_MODULES_SHOWN]) + more
    way_out = "name them relative to the module that uses them, or to the folder of budgets.yaml"
    if any(part in shown for part in INSTALLED):
        way_out = "install the project as editable (`pip install -e .`), not as a copy or a link"
    return (
        f"it used modules or files of head instead of its own ({shown}), so head would be compared with itself: "
        f"{way_out}"
    )
