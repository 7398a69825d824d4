"""A model that works in 16 bits behind the same call: floating-point inputs are cast on the way in, outputs back."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

WIDE = (torch.float32, torch.float64)
NARROW = (torch.float16, torch.bfloat16)


class LowPrecision(nn.Module):
    """Calls `model`, whose weights are of `dtype`, with float32 and float64 inputs cast to it.

    Its outputs of that dtype are cast to what the original returns in their place, `dtypes`; where it returns another
    number of tensors than in the example, to the first of them. Integers and booleans pass as they are.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, dtypes: tuple[torch.dtype, ...]) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.dtypes = dtypes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _pytree.tree_map_only(torch.Tensor, self._narrowed, (args, kwargs))
        leaves, structure = _pytree.tree_flatten(self.model(*args, **kwargs))
        return _pytree.tree_unflatten(self._widened(leaves), structure)

    def _narrowed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if tensor.dtype in WIDE else tensor

    def _widened(self, leaves: list[Any]) -> list[Any]:
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        dtypes = self.dtypes if len(self.dtypes) == len(places) else self.dtypes[:1] * len(places)
        for place, dtype in zip(places, dtypes, strict=True):
            if leaves[place].dtype is self.dtype and dtype.is_floating_point:
                leaves[place] = leaves[place].to(dtype)
        return leaves


def keep_in_float32(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module of which the numbers stay in float32 take and give `dtype`, as those around it do."""
    module.register_forward_pre_hook(_widened_inputs, with_kwargs=True)
    module.register_forward_hook(functools.partial(_narrowed_outputs, dtype=dtype))


def _widened_inputs(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return _pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.float() if tensor.dtype in NARROW else tensor, (args, kwargs)
    )


def _narrowed_outputs(module: nn.Module, args: Any, outputs: Any, dtype: torch.dtype) -> Any:
    return _pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.to(dtype) if tensor.dtype in WIDE else tensor, outputs
    )


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors in what a model returned, in order."""
    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
