"""What a variant answers on the whole evaluation set: its score, and for classifiers each single prediction."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import Answers, Sample, VariantError, error_text
from pytest_modelopt.measuring.worker.calls.called_model import CalledModel
from pytest_modelopt.measuring.worker.calls.structure import tensors_in
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Scorer
from pytest_modelopt.optimizing.calling import Inputs, fresh, in_one_process, on
from pytest_modelopt.optimizing.describe import user_line
from pytest_modelopt.optimizing.modules.nested_values import in_words
from pytest_modelopt.results.observations import Spread


def answer(
    model: Callable[..., Any], data: Iterable[Batch], scorer: Scorer, device: Device, slices: int = 0
) -> Answers:
    """Run the model, which is on `device`, on all batches; `slices` is how many the project names.

    Raises:
        VariantError: the model does not accept the data, or what is scored of its outputs holds NaN or +inf or does
            not fit the metric.
    """
    count, numbers = 0, Numbers()
    with torch.inference_mode():
        for batch in data:
            outputs = device.bring_back(run(model, device.take(batch.inputs)))
            scorer.add(outputs, batch)
            numbers.add(outputs)
            del outputs  # which may be larger than the weights, before the next call makes others
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
        pairing=score.pairing,
        spread=numbers.spread(),
        why_unpaired=score.why_unpaired,
    )


def run(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass on a copy of the inputs; an exception becomes an error that names the inputs' shapes."""
    return run_on(model, fresh(inputs))


def run_on(model: Callable[..., Any], inputs: Inputs) -> Any:
    """As `run`, on these very inputs."""
    try:
        return in_one_process(on(model, inputs))
    except VariantError:
        raise
    except Exception as error:
        shapes = in_words(inputs)
        if isinstance(model, CalledModel):
            told = f"`call` {model.name} raised {error_text(error)}{user_line(error)}"
            raise VariantError(f"{told} (input {shapes}); it is called as function(model, inputs)") from error
        raise VariantError(f"the model does not accept the data: {error_text(error)} (input {shapes})") from error


class Numbers:
    """The first numbers that a model answers with: of its one tensor, of its `logits`, or of all tensors."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []
        self._room = LOOKED_AT

    def add(self, outputs: Any) -> None:
        if not self._room:
            return
        named = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
        for tensor in tensors_in(named if isinstance(named, torch.Tensor) else outputs):
            if tensor.is_floating_point() and tensor.layout is torch.strided:
                part = tensor.detach().flatten()[: self._room].double()
                self._room -= len(part)
                self._parts.append(part[part.isfinite()].clone())

    def spread(self) -> Spread | None:
        numbers = torch.cat(self._parts) if self._parts else torch.zeros(0)
        if len(numbers) < 2:
            return None
        different, counts = numbers.unique(return_counts=True)  # type: ignore[no-untyped-call]
        at_ends = len(numbers) if len(different) == 1 else int(counts[0] + counts[-1])
        deviation = float(numbers.std())
        return Spread(len(numbers), len(different), deviation, at_ends) if math.isfinite(deviation) else None


LOOKED_AT = 100_000
"""Numbers of all answers whose spread is told."""
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
