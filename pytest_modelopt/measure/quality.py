"""What a variant answers on the whole evaluation set: its score, and for classifiers each single prediction."""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measure.batches import examples, leaves
from pytest_modelopt.measure.device import Device
from pytest_modelopt.measure.metrics.base import Batch
from pytest_modelopt.measure.replies import Answers, Sample, VariantError
from pytest_modelopt.recipes.calling import Inputs, call

Metric = Callable[[Any, torch.Tensor], Any]
"""(outputs of all examples, targets of all examples) -> the score, one finite number."""


def answer(model: nn.Module, data: Iterable[Batch], metric: Metric | None, device: Device) -> Answers:
    """Run the model, which is on `device`, on all batches. `metric` None means accuracy.

    Raises:
        VariantError: the model does not accept the data, its outputs are not finite or do not fit the metric.
    """
    collect: Accuracy | Outputs = Accuracy() if metric is None else Outputs(metric)
    count = 0
    with torch.inference_mode():
        for batch in data:
            outputs = device.bring_back(run(model, device.take(batch.inputs)))
            _refuse_not_finite(outputs, batch.first)
            collect.add(outputs, batch.targets, batch.first)
            count += examples(batch.inputs)
    return collect.answers(count, "")


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One forward pass; an exception becomes an error that names the inputs' shapes."""
    try:
        return call(model, inputs)
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


class Accuracy:
    """Share of examples whose largest logit stands at the target."""

    def __init__(self) -> None:
        self._predictions, self._targets = array("q"), array("q")
        self._classes = 0
        self._correct = bytearray()

    def add(self, outputs: Any, targets: torch.Tensor, first: int) -> None:
        logits = _logits(outputs, len(targets))
        _refuse_not_finite(logits, first)
        if logits.ndim != 2 or len(logits) != len(targets) or targets.ndim != 1 or targets.is_floating_point():
            raise VariantError(
                f"accuracy needs outputs of shape (examples, classes) and integer targets of shape (examples,); got "
                f"outputs {tuple(logits.shape)} and targets {tuple(targets.shape)} {str(targets.dtype)[6:]}; "
                "for another task give `metric: package.module:function`"
            )
        outside = ((targets < 0) | (targets >= logits.shape[1])).nonzero()
        if len(outside):
            index = int(outside[0])
            raise VariantError(
                f"target {int(targets[index])} of example {first + index} is not one of the model's "
                f"{logits.shape[1]} classes"
            )
        predicted = logits.argmax(dim=1)
        self._predictions.extend(predicted.tolist())
        self._classes = max(self._classes, logits.shape[1])
        self._targets.extend(targets.tolist())
        self._correct.extend((predicted == targets).to(torch.uint8).tolist())

    def answers(self, count: int, fingerprint: str) -> Answers:
        score = sum(self._correct) / count
        return Answers(score, count, fingerprint, self._predictions, bytes(self._correct), self._targets, self._classes)


class Outputs:
    """All outputs and targets, for a metric of the project's own: tensors, or lists of batches that differ in shape."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._outputs: list[Any] = []
        self._targets: list[torch.Tensor] = []

    def add(self, outputs: Any, targets: torch.Tensor, first: int) -> None:
        del first
        # A copy: some models write every answer into the same tensor.
        self._outputs.append(outputs.clone() if isinstance(outputs, torch.Tensor) else outputs)
        self._targets.append(targets)

    def answers(self, count: int, fingerprint: str) -> Answers:
        name = getattr(self._metric, "__name__", type(self._metric).__name__)
        try:
            score = float(self._metric(_joined(self._outputs), _joined(self._targets)))
        except Exception as error:
            message = " ".join(str(error).split())[:500]
            raise VariantError(f"the metric `{name}` raised {type(error).__name__}: {message}") from error
        if not math.isfinite(score):
            raise VariantError(f"the metric `{name}` returned {score}, which is not a finite number")
        return Answers(score, count, fingerprint, None, None)


def _joined(batches: list[Any]) -> Any:
    """All batches as one tensor; the list of them where they are no tensors or differ in shape, as sequences do."""
    if all(isinstance(b, torch.Tensor) and b.ndim and b.shape[1:] == batches[0].shape[1:] for b in batches):
        return torch.cat(batches)
    return batches


def _logits(outputs: Any, examples: int) -> torch.Tensor:
    """The class scores in a model's output: the output itself, its `logits`, or the only tensor of their shape."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    if isinstance(named, torch.Tensor):
        return named
    found = [tensor for tensor in tensors_in(outputs) if tensor.ndim == 2 and len(tensor) == examples]
    found = [tensor for tensor in found if tensor.is_floating_point()]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} tensors of the shape (examples, classes)" if found else "no `logits`"
    raise VariantError(
        f"accuracy needs a tensor of class scores, but the model returned a {type(outputs).__name__} with {what}; "
        "return the scores, name them `logits`, or give `metric: package.module:function`"
    )


def _refuse_not_finite(outputs: Any, first: int) -> None:
    """NaN and infinities are an error before anything is made of them: argmax would quietly take them for an answer."""
    for tensor in tensors_in(outputs):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            rows = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1) if tensor.ndim else None
            where = f", first in example {first + int(rows.nonzero()[0])}" if rows is not None else ""
            bad = int((~torch.isfinite(tensor)).sum())
            raise VariantError(f"the model's outputs are not finite: {bad} values are NaN or infinite{where}")
