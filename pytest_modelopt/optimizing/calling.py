"""How a model is called on one batch of inputs: the one place that knows tensor, tuple and dict."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

Inputs: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]"
"""One batch: a tensor (one argument), a tuple (positional arguments) or a dict (keyword arguments)."""

Run: TypeAlias = "Callable[[Callable[..., Any], Inputs], Any]"
"""(model, inputs) -> what a call of it gives."""


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass, on a copy of `inputs`.

    Whatever is called more than once is called so: a model that writes into its inputs (`x.div_(255)`) or keeps them
    would otherwise work on others from the second call on.
    """
    return call_on(model, fresh(inputs))


def call_on(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass on these very inputs: `model(x)` for a tensor, `model(*x)` for a tuple, `model(**x)` for a dict.

    A namedtuple, such as `torch.nn.utils.rnn.PackedSequence`, is one argument.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if type(inputs) is tuple:
        return model(*inputs)
    return model(inputs)


def fresh(inputs: Inputs) -> Inputs:
    """Inputs that no call has touched: copies in memory of their own. Those that share memory share it as before."""
    import torch

    with torch.inference_mode(False):  # ordinary tensors, as a user's loader gives them
        return copy.deepcopy(inputs)


def tensors_of(inputs: Inputs) -> Iterator[torch.Tensor]:
    """The tensors of a batch, in the order of its arguments."""
    import torch

    if isinstance(inputs, torch.Tensor):
        yield inputs
    else:
        values = inputs.values() if isinstance(inputs, dict) else inputs
        yield from (value for value in values if isinstance(value, torch.Tensor))
