"""Process memory of a variant: saved once, then loaded and called in several fresh workers, so its spread is known."""

from __future__ import annotations

import time
from dataclasses import replace

from pytest_modelopt.measure.process import WorkerFailed
from pytest_modelopt.measure.workshop import Failed, Measured, Workshop
from pytest_modelopt.record.model import CaseError, Measurement, ProcessMemory, ProcessMeter

RUNS = 3
"""Fresh processes whose peaks make one figure."""


def measure_process_memory(workshop: Workshop, measured: Measured, name: str) -> None:
    """Add it to the measurement, or the reason why there is none. Once for each variant.

    Raises:
        Failed: the variant's own worker died, which later steps need.
    """
    before = measured.measurement
    assert before is not None
    if before.process_memory is not None or "process_memory" in before.unmeasured:
        return
    model, inputs = workshop.new_file("process-memory-model"), workshop.new_file("process-memory-inputs")
    label, start = measured.variant.label, time.monotonic()
    try:
        workshop.progress.step(name, f"saving the {label}")
        workshop.request(measured.worker, "save", path=str(model))
        workshop.request(measured.worker, "save_inputs", path=str(inputs))
        runs: list[tuple[int, ProcessMeter]] = []
        for run in range(1, RUNS + 1):
            workshop.progress.step(name, f"process memory of the {label}, run {run} of {RUNS}")
            runs.append(_fresh_run(workshop, measured, before, model=str(model), inputs=str(inputs)))
    except WorkerFailed as failed:
        if measured.worker is None or not measured.worker.is_alive:
            raise Failed(CaseError("memory", failed.message, failed.output)) from None
        measured.measurement = replace(before, unmeasured=before.unmeasured | {"process_memory": failed.message})
        return
    finally:
        model.unlink(missing_ok=True)
        inputs.unlink(missing_ok=True)
        measured.seconds["process_memory"] = time.monotonic() - start
    found = ProcessMemory(tuple(peak for peak, _ in runs), runs[0][1])
    measured.measurement = replace(before, process_memory=found)


def _fresh_run(
    workshop: Workshop, measured: Measured, measurement: Measurement, *, model: str, inputs: str
) -> tuple[int, ProcessMeter]:
    tree = measured.variant.tree  # what it saved was looked at before
    unwatched = None if tree is None else replace(tree, is_watched=False)
    worker = workshop.new_worker(replace(measured.variant, tree=unwatched))
    try:
        answer: tuple[int, ProcessMeter] = workshop.request(
            worker, "process_memory", model=model, inputs=inputs, runtime=measurement.runtime
        )
        return answer
    finally:
        worker.close()
