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
        # Lists where generators would do: torch.compile does not trace those.
        converted = [self._converted(value) for value in args]
        return tuple(converted), {name: self._converted(value) for name, value in kwargs.items()}

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
        if len(leaves) != len(self.contiguous):
            return None  # not an answer of the kind that was seen: it stays as it is
        is_changed = False
        for index, was_contiguous in enumerate(self.contiguous):  # torch.compile does not trace a strict zip
            if was_contiguous and isinstance(leaves[index], torch.Tensor) and not _is_contiguous(leaves[index]):
                leaves[index] = leaves[index].contiguous()
                is_changed = True
        return _pytree.tree_unflatten(leaves, structure) if is_changed else None


def _is_contiguous(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.is_contiguous()
