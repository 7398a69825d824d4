"""Further launches of a variant's worker, for timing: an optimized model is saved once and loaded again each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_modelopt.measure.process import WorkerFailed
from pytest_modelopt.measure.workshop import Measured, Saved, Workshop


def start_again(workshop: Workshop, measured: Measured) -> None:
    """Replace the worker by a fresh one that stands where it stood. Raises WorkerFailed.

    The original is made by its factory in each launch, as the team ships it; the data is made by none of them.
    """
    try:
        if measured.saved is None:
            measured.saved = _save(workshop, measured)
        workshop.end(measured)
        workshop.start(measured)
        if measured.saved.model is None or not _is_reloaded(workshop, measured, measured.saved.model):
            _make_again(workshop, measured)
    except BaseException:
        workshop.end(measured)  # half made: the next case must not find it
        raise


def _save(workshop: Workshop, measured: Measured) -> Saved:
    inputs = workshop.new_file("inputs")
    workshop.request(measured.worker, "save_inputs", path=str(inputs))
    if measured.variant.recipe is None:
        return Saved(inputs, None, "")
    model = workshop.new_file("model")
    try:
        fingerprint = workshop.request(measured.worker, "save", path=str(model))
    except WorkerFailed:
        if measured.worker is None or not measured.worker.is_alive:
            raise
        return Saved(inputs, None, "")  # its size could not be measured either, and the table says why
    return Saved(inputs, model, fingerprint)


def _is_reloaded(workshop: Workshop, measured: Measured, model: Path) -> bool:
    """Load the saved model into the fresh worker; False, with a note, where it is not what was saved."""
    saved, measurement = measured.saved, measured.measurement
    assert saved is not None
    assert measurement is not None
    try:
        answers = workshop.request(measured.worker, "reload", path=str(model), inputs_file=str(saved.inputs))
        why = "" if answers == saved.fingerprint else "its answers differ from those before it was saved"
    except WorkerFailed as failed:
        why = failed.message
        if measured.worker is None or not measured.worker.is_alive:
            workshop.end(measured)
            workshop.start(measured)
    if not why:
        return True
    measured.saved = replace(saved, model=None)
    note = f"saved and loaded again it is not the same model: {why}; so it was optimized anew for each launch"
    measured.measurement = replace(measurement, notes=(*measurement.notes, note))
    return False


def _make_again(workshop: Workshop, measured: Measured) -> None:
    assert measured.saved is not None
    workshop.request(measured.worker, "load", inputs_file=str(measured.saved.inputs))
    if measured.variant.recipe is not None:
        workshop.request(measured.worker, "optimize")
