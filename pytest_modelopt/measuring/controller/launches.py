"""Further launches of a variant's worker, for timing: an optimized model is saved once and loaded again each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.worker_context import Measured, Saved, WorkerContext
from pytest_modelopt.measuring.protocol import Sample


def start_again(context: WorkerContext, measured: Measured) -> None:
    """Replace the worker by a fresh one that stands where it stood. Raises WorkerFailed.

    The original is made by its factory in each launch, as the team ships it; the data is made by none of them.
    """
    try:
        saved = keep(context, measured)
        context.end(measured)
        context.start(measured)
        if saved.model is None or not _is_reloaded(context, measured, saved, saved.model):
            _make_again(context, measured, saved)
    except BaseException:
        context.end(measured)  # half made: the next case must not find it
        raise


def keep(context: WorkerContext, measured: Measured) -> Saved:
    """Save what further launches start from, once; its worker may end then. Raises WorkerFailed."""
    if measured.saved is None:
        measured.saved = _save(context, measured)
    return measured.saved


def _save(context: WorkerContext, measured: Measured) -> Saved:
    inputs, model = context.new_file("inputs"), context.new_file("model")
    context.request(measured.worker, "save_inputs", path=str(inputs))
    answer: Sample = context.request(measured.worker, "answer")
    if measured.variant.is_original:
        return Saved(inputs, None, answer)
    if not answer.values:
        _note(measured, "its answers hold no tensor, so a saved copy cannot be checked")
        return Saved(inputs, None, answer)
    try:
        context.request(measured.worker, "save", path=str(model))
    except WorkerFailed as failed:
        if measured.worker is None or not measured.worker.is_alive:
            raise
        _note(measured, failed.message)
        return Saved(inputs, None, answer)
    return Saved(inputs, model, answer)


def _is_reloaded(context: WorkerContext, measured: Measured, saved: Saved, model: Path) -> bool:
    """Load the saved model into the fresh worker; False, with a note, where it is not what was saved."""
    error = None
    try:
        context.request(measured.worker, "reload", path=str(model), inputs_file=str(saved.inputs))
        if saved.answer.is_like(context.request(measured.worker, "answer")):
            _saw(measured, reloads=True)
            return True
        _note(measured, "saved and loaded again it is not the same model: its answers differ")
    except WorkerFailed as failed:
        error = failed.message
        _note(measured, f"saved and loaded again it is not the same model: {error}")
        if measured.worker is None or not measured.worker.is_alive:
            context.end(measured)
            context.start(measured)
    _saw(measured, reloads=False, error=error)
    model.unlink(missing_ok=True)
    measured.saved = replace(saved, model=None)
    return False


def _make_again(context: WorkerContext, measured: Measured, saved: Saved) -> None:
    """By the factory and the recipe, as in the first launch: what answers differently must not be timed for it."""
    variant = measured.variant
    first = saved.inputs if variant.is_at_first else measured.inputs[variant.points[0].name]
    context.request(measured.worker, "load", inputs_file=str(first), examples=measured.examples, scores=False)
    if variant.recipe is not None:
        context.request(measured.worker, "optimize")
    if not variant.is_at_first:
        context.request(measured.worker, "move", point=variant.point, inputs_file=str(saved.inputs))
    if not saved.answer.is_like(context.request(measured.worker, "answer")):
        raise WorkerFailed(
            f"the {variant.label} was made again for another launch, and answers differently: its factory "
            "must give the same model in every process",
            "",
        )


def _saw(measured: Measured, *, reloads: bool, error: str | None = None) -> None:
    if measured.measurement is not None and measured.measurement.observations is not None:
        seen = replace(measured.measurement.observations, reloads=reloads, reload_error=error)
        measured.measurement = replace(measured.measurement, observations=seen)


def _note(measured: Measured, why: str) -> None:
    assert measured.measurement is not None
    note = f"{why}; so it was optimized anew for each launch"
    measured.measurement = replace(measured.measurement, notes=(*measured.measurement.notes, note))
