"""Layers that a call gives a single example without a batch dimension, which torch's layers take as well as batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import author_name, type_name
from pytest_modelopt.optimizing.modules.fused_path import unfused

if TYPE_CHECKING:
    from torch import nn

_NAMED = 3


def told(model: nn.Module, inputs: Inputs) -> str:
    """Why a model that holds such layers has no examples in the first dimension of its inputs, and what to do; '' for
    all others."""
    names = _layers(model, inputs)
    if not names:
        return ""
    layers = ", ".join(names[:_NAMED]) + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    verb = "gets" if len(names) == 1 else "get"
    return (
        f"a converted program takes any number of examples in the first dimension of each input, and {layers} {verb} "
        "one example without a batch dimension, where the first dimension is something else, such as the steps of a "
        "sequence: give the model batches, with the examples in the first dimension (batch_first=True in recurrent "
        "layers and attention); recipes that stay in torch, such as int8-dynamic, take the call as it is"
    )


def _layers(model: nn.Module, inputs: Inputs) -> list[str]:
    """The names of those layers, with their types, in the order of their calls."""
    import torch

    found: dict[str, None] = {}
    names = {module: name for name, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)}

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        first = next(iter((*args, *kwargs.values())), None)
        if isinstance(first, torch.Tensor) and first.dim() == _dimensions(module):
            name = author_name(names[module])
            found[f"`{name}` ({type_name(module)})" if name else f"the {type_name(module)}"] = None

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True) for module in names if _dimensions(module) is not None
    ]
    try:
        with torch.no_grad(), unfused():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


def _dimensions(module: nn.Module) -> int | None:
    """How many a single example has for a layer that takes it without a batch dimension; None for all others."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        return 2
    if isinstance(module, (nn.RNNCellBase, nn.Linear)):
        return 1
    return len(module.kernel_size) + 1 if isinstance(module, _ConvNd) else None
