"""How a model is called on one batch of inputs: the one place that knows tensor, tuple and dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

Inputs: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]"
"""One batch: a tensor (one argument), a tuple (positional arguments) or a dict (keyword arguments)."""


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass: `model(x)` for a tensor, `model(*x)` for a tuple, `model(**x)` for a dict.

    A namedtuple, such as `torch.nn.utils.rnn.PackedSequence`, is one argument.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if type(inputs) is tuple:
        return model(*inputs)
    return model(inputs)
