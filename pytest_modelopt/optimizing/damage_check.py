"""A float model that answers before and after something that must not touch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.calling import Inputs, call

if TYPE_CHECKING:
    import torch
    from torch import nn


class DamageCheck:
    """Remembers what `model` answers to `batches`. Of one that answers at random it can say nothing."""

    def __init__(self, model: nn.Module, batches: list[Inputs]) -> None:
        self._model = model
        self._batches = batches
        self._before = self._answers()
        self._repeats = _equal(self._before, self._answers())

    def answers_differently(self) -> bool:
        """Whether the model's answers to the same inputs have become others."""
        return self._repeats and not _equal(self._before, self._answers())

    def _answers(self) -> list[torch.Tensor]:
        import torch

        from pytest_modelopt.optimizing.quantization.low_precision_module import tensors_of

        with torch.no_grad():
            return [tensor.clone() for batch in self._batches for tensor in tensors_of(call(self._model, batch))]


def _equal(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """To the bit, where not a number is equal to itself: the same kernels gave both."""
    return len(before) == len(after) and all(
        one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())
        for one, other in zip(before, after, strict=True)
    )
