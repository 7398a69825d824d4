"""What a variant answers on the whole evaluation set: its score, and for classifiers each single prediction."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from pytest_modelopt.measure.batches import leaves
from pytest_modelopt.measure.device import Device
from pytest_modelopt.measure.metrics.base import Batch, Scorer
from pytest_modelopt.measure.replies import Answers, Sample, VariantError
from pytest_modelopt.recipes.calling import Inputs, call_on, fresh


def answer(
    model: Callable[..., Any], data: Iterable[Batch], scorer: Scorer, device: Device, slices: int = 0
) -> Answers:
    """Run the model, which is on `device`, on all batches; `slices` is how many the project names.

    Raises:
        VariantError: the model does not accept the data, its outputs are not finite or do not fit the metric.
    """
    count = 0
    with torch.inference_mode():
        for batch in data:
            outputs = device.bring_back(run(model, device.take(batch.inputs)))
            refuse_not_finite(outputs, batch.first)
            scorer.add(outputs, batch)
            count += batch.examples
        score = scorer.score(slices)
    return Answers(
        score=score.value,
        examples=count,
        data_fingerprint="",
        predictions=score.predictions,
        correct=score.correct,
        targets=score.targets,
        classes=score.classes,
        slice_scores=score.slice_scores,
        summands=score.summands,
        width=score.width,
        notes=score.notes,
        why_not=score.why_not,
    )


def run(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass on a copy of the inputs; an exception becomes an error that names the inputs' shapes."""
    return run_on(model, fresh(inputs))


def run_on(model: Callable[..., Any], inputs: Inputs) -> Any:
    """As `run`, on these very inputs."""
    try:
        return call_on(model, inputs)
    except Exception as error:
        shapes = ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in leaves(inputs))
        message = " ".join(str(error).split())[:500]
        raise VariantError(
            f"the model does not accept the data: {type(error).__name__}: {message} (input {shapes})"
        ) from error


SAMPLED = 10_000
"""Numbers of an answer that are compared between launches."""


def sample(outputs: Any) -> Sample:
    """The first numbers in what a model returned, and the types and shapes of all of it."""
    kinds, values = [], array("d")
    for tensor in tensors_in(outputs):
        kinds.append(f"{tensor.dtype}{tuple(tensor.shape)}")
        plain = tensor.dequantize() if tensor.is_quantized else tensor
        plain = plain if plain.layout is torch.strided else plain.to_dense()
        real = torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
        values.extend(real.detach().cpu().flatten()[: SAMPLED - len(values)].double().tolist())
    return Sample(";".join(kinds), values)


def update_with_bytes(hasher: Any, tensor: torch.Tensor) -> None:
    """Feed the bytes of a tensor, in logical order, to one of hashlib's."""
    contiguous = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if contiguous.numel():
        view = (ctypes.c_char * contiguous.nbytes).from_address(contiguous.data_ptr())  # no copy, any dtype
        hasher.update(view)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a model's output: in tuples, lists, dicts, and objects with attributes."""
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value).__module__ == "numpy" and hasattr(value, "nbytes") and value.dtype.kind in "biufc":
        yield torch.as_tensor(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dict__"):
        for item in vars(value).values():
            yield from tensors_in(item)


def refuse_not_finite(outputs: Any, first: int) -> None:
    """NaN and infinities are an error before anything is made of them: argmax would quietly take them for an answer."""
    for tensor in tensors_in(outputs):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            rows = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1) if tensor.ndim else None
            where = f", first in example {first + int(rows.nonzero()[0])}" if rows is not None else ""
            bad = int((~torch.isfinite(tensor)).sum())
            raise VariantError(f"the model's outputs are not finite: {bad} values are NaN or infinite{where}")
