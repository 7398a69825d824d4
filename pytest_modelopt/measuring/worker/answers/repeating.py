"""Does a variant answer the same examples the same way twice? Where it does not, a second pass over them shows how far.

Dropout that `eval()` does not reach, sampling, noise, random kernels, a state that is kept from call to call: whatever
it is, the score of such a variant is partly chance. A variant that repeats itself pays for the question with one call
more on its first batch and one on a later one; with two each where the answers of the pass are too large to be kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from pytest_modelopt.measuring.protocol import ROUNDING, Answers, VariantError
from pytest_modelopt.measuring.worker.answers.quality import run
from pytest_modelopt.measuring.worker.calls.structure import tensors_in, texts_in
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score, Scorer
from pytest_modelopt.measuring.worker.source_loading import seed_everything
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.results.answers import Repeat

Pass: TypeAlias = Callable[[Callable[[Iterable[Batch]], Iterable[Batch]]], Answers]
"""A pass over the data, seeded for the run; its batches go through the function that is given."""

_KEPT_BYTES = 64 << 20
"""Of one answer that is kept during the pass."""
_CHUNK = 1 << 20
"""Numbers that are compared at a time: answers may be large."""


class Probe:
    """Remembers two batches of a pass over the data, and asks the model for them again once the pass is over."""

    def __init__(self, model: Callable[..., Any], device: Device, *, keeps_answers: bool) -> None:
        """`keeps_answers`: what the pass scores is what `model` answers."""
        self._model, self._device, self._keeps_answers = model, device, keeps_answers
        self._first: _Asked | None = None
        self._later: _Asked | None = None

    def watch(self, scorer: Scorer) -> Scorer:
        """A scorer that is given what that one is given."""
        return _Watched(scorer, self._see)

    def _see(self, outputs: Any, inputs: Inputs, index: int) -> None:
        """Keep the first batch and a later one; the number of batches is not known in advance."""
        if index == 0:
            self._first = self._asked(outputs, inputs)
        elif (index & (index - 1)) == 0:  # 1, 2, 4, 8, ...: the last one of these is in the second half
            self._later = None  # before another answer is kept
            self._later = self._asked(outputs, inputs)

    def _asked(self, outputs: Any, inputs: Inputs) -> _Asked:
        answer = None
        with contextlib.suppress(Exception):  # then `repeats` fails and says why
            if self._keeps_answers and sum(tensor.nbytes for tensor in tensors_in(outputs)) <= _KEPT_BYTES:
                answer = KeptAnswer(outputs)
        return _Asked(inputs, answer)

    def repeats(self) -> bool:
        """Whether the model gives the same answers to the same inputs again, up to rounding. Nothing is seeded in
        between. The later batch is first: so a state that takes two values in turn is at another one for either."""
        with torch.inference_mode():
            same = [self._is_same(asked) for asked in (self._later, self._first) if asked is not None]
        return all(same)

    def _is_same(self, asked: _Asked) -> bool:
        before = asked.answer or KeptAnswer(self._call(asked.inputs))
        return before.is_like(self._call(asked.inputs))

    def _call(self, inputs: Inputs) -> Any:
        return self._device.bring_back(run(self._model, self._device.take(inputs)))


@dataclass(frozen=True)
class _Asked:
    inputs: Inputs
    answer: KeptAnswer | None
    """None where it is large, or not what is asked for again: then the model is called on the inputs twice."""


class _Watched:
    """A scorer beside which another one looks at every batch."""

    def __init__(self, scorer: Scorer, see: Callable[[Any, Inputs, int], None]) -> None:
        self._scorer, self._see, self._index = scorer, see, 0

    def add(self, outputs: Any, batch: Batch) -> None:
        self._see(outputs, batch.inputs, self._index)
        self._index += 1
        self._scorer.add(outputs, batch)

    def score(self, slices: int) -> Score:
        return self._scorer.score(slices)


def second_pass(first: Answers, one_pass: Pass, seed: int) -> Repeat | None:
    """What the variant gives for the same examples with other random numbers; None where the examples differ.

    Raises:
        VariantError: what it answers this time cannot be scored.
    """
    try:
        second = one_pass(lambda batches: _with_other_dice(batches, seed))
    except VariantError as error:
        raise VariantError(
            f"{error} (in a second pass over the data: asked twice, it answers the same examples differently)"
        ) from error
    if second.data_fingerprint != first.data_fingerprint:
        return None
    return Repeat(second.examples, second.score, _flips(first, second))


def _with_other_dice(batches: Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The same batches, in the order that a loader draws before the first one; from then on other numbers come."""
    for index, batch in enumerate(batches):
        if index == 0:
            seed_everything(seed + 1)
        yield batch


def _flips(first: Answers, second: Answers) -> int | None:
    if first.predictions is None or second.predictions is None:
        return None
    return sum(a != b for a, b in zip(first.predictions, second.predictions, strict=True))


# --- two answers -----------------------------------------------------------------------------------------------------


class KeptAnswer:
    """What a model answered: a copy, since some write every answer into the same tensor."""

    def __init__(self, output: Any) -> None:
        self._tensors = [tensor.detach().cpu().clone() for tensor in dense(output)]
        self._texts = list(texts_in(output))

    def is_like(self, output: Any) -> bool:
        """Whether `output` holds the same tensors, each up to rounding by its own largest number, and the same text."""
        tensors = [tensor.detach().cpu() for tensor in dense(output)]
        if len(tensors) != len(self._tensors) or list(texts_in(output)) != self._texts:
            return False
        return all(_are_alike(first, second) for first, second in zip(self._tensors, tensors, strict=True))


def dense(output: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model returned, each in the plain form whose numbers can be compared."""
    for tensor in tensors_in(output):
        plain = tensor.dequantize() if tensor.is_quantized else tensor
        yield plain if plain.layout is torch.strided else plain.to_dense()


def _are_alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Numbers that count something must be the same; of others, kernels may add in another order."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if torch.equal(first, second):
        return True
    if not first.is_floating_point() and not first.is_complex():
        return False
    rounding = max(ROUNDING, 2 * torch.finfo(first.dtype).eps)
    scale = max((_largest(chunk) for chunk in _chunks(first)), default=0.0)
    return all(
        bool(torch.isclose(a, b, rtol=0.0, atol=rounding * scale, equal_nan=True).all())
        for a, b in zip(_chunks(first), _chunks(second), strict=True)
    )


def _chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    numbers = real.flatten()
    for start in range(0, len(numbers), _CHUNK):
        yield numbers[start : start + _CHUNK].double()


def _largest(numbers: torch.Tensor) -> float:
    finite = numbers[torch.isfinite(numbers)]
    return float(finite.abs().max()) if finite.numel() else 0.0
