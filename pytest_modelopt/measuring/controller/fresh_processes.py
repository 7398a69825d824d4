"""What fresh workers find that only load a saved variant and call it: process memory, and whether the books balance."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_modelopt.measuring.controller import memory_left
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.worker_context import Failed, Measured, WorkerContext
from pytest_modelopt.measuring.protocol import Balance
from pytest_modelopt.results.case import CaseError, Stage
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Measurement, ProcessMemory, ProcessMeter

_UNNAMED = (
    "loading and calling it reads {} from files whose paths are not known, since native code or another process reads "
    "them: keep each file's path, as text, in an attribute of the model that is saved with it, so that the file counts"
)
_PACKED = (
    "its memory counts the numbers in its packed weights; torch's kernels keep {} more for them on this processor, as "
    "padding or as a second copy: `max_process_memory` limits what the whole process takes"
)
_PACKED_TOLD_BYTES, _PACKED_TOLD_SHARE = 1024**2, 0.25  # of its memory
RUNS = 3
"""Fresh processes whose peaks make one figure."""


def balance_books(context: WorkerContext, measured: Measured, name: str) -> None:
    """Add to the measurement what the tensor meter does not see of the variant, and to its size the files that it reads
    when it is loaded and called. Where that cannot be known, neither can these figures: the reason is kept.

    Raises:
        Failed: the variant's own worker died, which later steps need, or another process has no memory.
    """
    before = measured.measurement
    assert before is not None
    if before.reserved_bytes is not None or before.size_bytes is None is before.memory_bytes:  # a GPU's, or nothing
        return
    label, start = measured.variant.label, time.monotonic()
    try:
        with saved_files(context, measured, name) as saved:
            context.progress.step(name, f"loading the {label} in a fresh process")
            found: Balance = _in_fresh_worker(
                context, measured, "balance", **saved, runtime=before.runtime, shipped=_shipped(measured, before)
            )
    except WorkerFailed as failed:
        require_alive(measured, failed, "memory")
        measured.measurement = _unknown(before, failed.message)
        return
    finally:
        measured.seconds["memory"] = measured.seconds.get("memory", 0.0) + time.monotonic() - start
    if found.other_processes:
        why = f"it leaves work to other processes, whose memory and files are not measured: {found.other_processes}"
        measured.measurement = _unknown(before, why)
        return
    notes = [f"its memory is only what torch's allocator sees, unchecked: {found.why_not}"] if found.why_not else []
    if found.packing_bytes > max(_PACKED_TOLD_BYTES, _PACKED_TOLD_SHARE * (before.memory_bytes or 0)):
        notes.append(_PACKED.format(format_bytes(found.packing_bytes)))
    if found.files:
        named = ", ".join(map(_named, found.files.items()))
        notes.append(f"its size includes what it reads when it is loaded and called: {named}")
    hidden: int | None = found.hidden_bytes
    if not hidden and measured.loaded is not None and measured.loaded.is_uncounted:
        hidden = None  # its weights are somewhere, though they may be smaller than the tolerances of the books
    size, unmeasured = before.size_bytes, before.unmeasured
    if size is not None and found.unnamed_bytes:
        size, unmeasured = None, unmeasured | {"size": _UNNAMED.format(format_bytes(found.unnamed_bytes))}
    measured.measurement = replace(
        before,
        size_bytes=None if size is None else size + sum(found.files.values()),
        unmeasured=unmeasured,
        hidden_bytes=0 if before.memory_bytes is None else hidden,
        runtime=before.runtime or found.runtime or None,
        notes=(*before.notes, *notes),
    )


def _unknown(before: Measurement, why: str) -> Measurement:
    """Without what a fresh process would have to tell."""
    reasons = {"process_memory": why}
    if before.size_bytes is not None:
        reasons["size"] = f"what it needs beside its file is not known: {why}"
    hidden = 0 if before.memory_bytes is None else None
    return replace(before, size_bytes=None, hidden_bytes=hidden, unmeasured=before.unmeasured | reasons)


def _named(file: tuple[str, int]) -> str:
    path, size = file
    return f"{Path(path).name} ({size:,} bytes)"


def measure_process_memory(context: WorkerContext, measured: Measured, name: str) -> None:
    """Add it to the measurement, or the reason why there is none. Once for each variant.

    Raises:
        Failed: the variant's own worker died, which later steps need, or another process has no memory.
    """
    before = measured.measurement
    assert before is not None
    if before.process_memory is not None or "process_memory" in before.unmeasured:
        return
    label, start = measured.variant.label, time.monotonic()
    runs: list[tuple[int, ProcessMeter]] = []
    try:
        with saved_files(context, measured, name) as saved:
            for run in range(1, RUNS + 1):
                context.progress.step(name, f"process memory of the {label}, run {run} of {RUNS}")
                runs.append(_fresh_run(context, measured, before, **saved))
    except WorkerFailed as failed:
        require_alive(measured, failed, "memory")
        measured.measurement = replace(before, unmeasured=before.unmeasured | {"process_memory": failed.message})
        return
    finally:
        measured.seconds["process_memory"] = time.monotonic() - start
    found = ProcessMemory(tuple(peak for peak, _ in runs), runs[0][1])
    measured.measurement = replace(before, process_memory=found)


def _fresh_run(
    context: WorkerContext, measured: Measured, measurement: Measurement, **saved: str
) -> tuple[int, ProcessMeter]:
    answer: tuple[int, ProcessMeter] = _in_fresh_worker(
        context, measured, "process_memory", **saved, runtime=measurement.runtime
    )
    return answer


@contextlib.contextmanager
def saved_files(context: WorkerContext, measured: Measured, name: str) -> Iterator[dict[str, str]]:
    """The files of the model and of the inputs, by the names of the operations' arguments, until they were used.

    Raises:
        Failed: a process that loads them does not fit into the memory that is left.
    """
    if measured.measurement is not None and (
        why := memory_left.of_another_process(measured.measurement, measured.variant.label)
    ):
        raise Failed(CaseError("memory", why))
    files = {"model": context.new_file("fresh-model"), "inputs": context.new_file("fresh-inputs")}
    try:
        context.progress.step(name, f"saving the {measured.variant.label}")
        context.request(measured.worker, "save", path=str(files["model"]))
        context.request(measured.worker, "save_inputs", path=str(files["inputs"]))
        yield {argument: str(file) for argument, file in files.items()}
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


def _shipped(measured: Measured, measurement: Measurement) -> tuple[str, ...]:
    """The files of a candidate, which its size counts already."""
    files = measurement.provenance.files if measurement.provenance is not None else {}
    return tuple(str(Path(measured.variant.import_paths[0]) / file) for file in files)


def _in_fresh_worker(context: WorkerContext, measured: Measured, operation: str, **arguments: Any) -> Any:
    tree = measured.variant.tree  # what it saved was looked at before
    unwatched = None if tree is None else replace(tree, is_watched=False)
    worker = context.new_worker(replace(measured.variant, tree=unwatched))
    try:
        return context.request(worker, operation, **arguments)
    finally:
        worker.close()


def require_alive(measured: Measured, failed: WorkerFailed, stage: Stage) -> None:
    """Raises Failed where the variant's own worker has died in that stage, which later ones need."""
    if measured.worker is None or not measured.worker.is_alive:
        raise Failed(CaseError(stage, failed.message, failed.output)) from None
