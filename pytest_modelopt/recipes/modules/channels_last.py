"""The hooks of a model whose convolutions work in channels-last: the format at its border is what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the number of dimensions of the tensors that a convolution works with."""


@dataclass(frozen=True)
class IntoChannelsLast:
    """A forward pre-hook: inputs of as many `dimensions` as the convolutions work with come in in their format."""

    dimensions: frozenset[int]

    def __call__(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return tuple(self._converted(value) for value in args), {k: self._converted(v) for k, v in kwargs.items()}

    def _converted(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim in self.dimensions and value.layout is torch.strided:
            return value.contiguous(memory_format=FORMATS[value.ndim])
        return value


@dataclass(frozen=True)
class BackToContiguous:
    """A forward hook: those of the answer's tensors leave contiguous that do so in the original."""

    contiguous: tuple[bool, ...]
    """Of each leaf of the answer, in order, whether the original's is a contiguous tensor."""

    @classmethod
    def of(cls, answer: Any) -> BackToContiguous:
        """For a model that answers in the layout of `answer`."""
        leaves = _pytree.tree_leaves(answer)
        return cls(tuple(isinstance(leaf, torch.Tensor) and _is_contiguous(leaf) for leaf in leaves))

    def __call__(self, _: nn.Module, args: Any, answer: Any) -> Any:
        leaves, structure = _pytree.tree_flatten(answer)
        if len(leaves) != len(self.contiguous) or all(self._is_as_it_was(*pair) for pair in self._pairs(leaves)):
            return None  # the answer stays the object that it is
        return _pytree.tree_unflatten(
            [leaf if self._is_as_it_was(leaf, was) else leaf.contiguous() for leaf, was in self._pairs(leaves)],
            structure,
        )

    def _pairs(self, leaves: list[Any]) -> list[tuple[Any, bool]]:
        return list(zip(leaves, self.contiguous, strict=True))

    @staticmethod
    def _is_as_it_was(leaf: Any, was_contiguous: bool) -> bool:
        return not was_contiguous or not isinstance(leaf, torch.Tensor) or _is_contiguous(leaf)


def _is_contiguous(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.is_contiguous()
