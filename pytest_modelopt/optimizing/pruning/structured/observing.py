"""Removing units so that the answers stay right: compared with the same units silenced, put back where they differ.

The answers of the whole model would not tell enough: a branch that adds little to them, such as attention right after
its initialization, can be scrambled without a visible trace at the end. So the outputs of the very layers that read the
removed units are compared, too.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.modules.fused_path import unfused

if TYPE_CHECKING:
    import torch
    from torch import nn

FLOAT32_TOLERANCE = 1e-3
LOW_PRECISION_TOLERANCE = 5e-2
"""Largest difference of the model's answers, relative to the largest of them, between removed and silenced units."""
FLOAT32_TOLERANCE_WITHIN = 1e-4
"""The same for the layers that read the units: rounding alone has had no depth yet to add up in."""

SHAPE_CHANGED = "the shape of the model's output would change"
MIXED_UP = (
    "the model's code mixes their units in an order that does not follow the layers (as attention heads do), and the "
    "remaining units would be mistaken for others"
)


@dataclass(frozen=True)
class Observation:
    """What a model answered to one call, and what the watched modules returned, call by call."""

    outputs: list[torch.Tensor]
    within: list[list[torch.Tensor]]

    def difference(self, other: Observation) -> str:
        """'' where both are the same function; otherwise why not."""
        if [tensor.shape for tensor in self.outputs] != [tensor.shape for tensor in other.outputs]:
            return SHAPE_CHANGED
        same = _close(self.outputs, other.outputs, FLOAT32_TOLERANCE)
        for expected, found in zip(self.within, other.within, strict=True):
            shapes = [tensor.shape for tensor in expected] == [tensor.shape for tensor in found]
            same = same and shapes and _close(expected, found, FLOAT32_TOLERANCE_WITHIN)
        return "" if same else MIXED_UP


def observe(
    model: nn.Module,
    inputs: Inputs,
    watched: Sequence[nn.Module],
    kept: Mapping[nn.Module, torch.Tensor] | None = None,
) -> Observation:
    """One call of the model. `kept`: of these modules' outputs, only these channels are kept in the observation."""
    import torch

    found: dict[nn.Module, list[torch.Tensor]] = {module: [] for module in watched}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        tensor = tensors(output)[0]
        if kept and module in kept:
            tensor = tensor.index_select(channel_dimension(module, tensor), kept[module])
        found[module].append(tensor.clone())

    handles = [module.register_forward_hook(look) for module in found]
    try:
        with torch.no_grad(), unfused():
            outputs = [tensor.clone() for tensor in tensors(call(model, inputs))]
    finally:
        for handle in handles:
            handle.remove()
    return Observation(outputs, [found[module] for module in watched])


def channel_dimension(module: nn.Module, tensor: torch.Tensor) -> int:
    """Where the channels of an output of this Linear or convolution are."""
    from torch import nn

    if not isinstance(module, nn.modules.conv._ConvNd):
        return -1
    return tensor.dim() - 1 - len(module.kernel_size)


@contextlib.contextmanager
def zeroed(parts: Iterable[tuple[torch.Tensor, int, Sequence[int]]]) -> Iterator[None]:
    """Weights with zeros at these indices of this dimension, for the time of the block."""
    import torch

    clones: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for weight, dimension, indices in parts:
            clones.append((weight, weight.detach().clone()))
            weight.data.index_fill_(dimension, torch.tensor(indices, device=weight.device), 0)
        yield
    finally:
        for weight, clone in reversed(clones):
            weight.data.copy_(clone)


class Backup:
    """Modules as they were.

    Pruning puts new parameters into modules and new numbers into attributes, and touches no tensor in place: to keep
    the references is enough.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._attributes = [
            (module, {name: _shallow(value) for name, value in vars(module).items()})
            for module in dict.fromkeys(modules)
        ]

    def restore(self) -> None:
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update({name: _shallow(value) for name, value in attributes.items()})


def narrow(linear: nn.Linear, dimension: int, kept: torch.Tensor) -> None:
    """Keep these rows (dimension 0: outputs) or columns (1: inputs) of a Linear, gradients included."""
    linear.weight = selected(linear.weight, dimension, kept)
    if dimension:
        linear.in_features = len(kept)
        return
    linear.out_features = len(kept)
    if linear.bias is not None:
        linear.bias = selected(linear.bias, 0, kept)


def selected(parameter: torch.Tensor, dimension: int, kept: torch.Tensor) -> nn.Parameter:
    """A new parameter of these indices of a dimension, gradients included."""
    from torch import nn

    kept = kept.to(parameter.device)
    new = nn.Parameter(parameter.detach().index_select(dimension, kept), requires_grad=parameter.requires_grad)
    if parameter.grad is not None:
        new.grad = parameter.grad.index_select(dimension, kept)
    return new


def tensors(output: Any) -> list[torch.Tensor]:
    """The tensors in what a model or module returned, in order."""
    import torch
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _shallow(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, (dict, list)) else value


def _close(expected: list[torch.Tensor], outputs: list[torch.Tensor], tolerance: float) -> bool:
    import torch

    for one, other in zip(expected, outputs, strict=True):
        if not one.is_floating_point():
            continue
        allowed = tolerance if torch.finfo(one.dtype).bits >= 32 else LOW_PRECISION_TOLERANCE
        finite = one[torch.isfinite(one)]
        scale = float(finite.abs().max()) if finite.numel() else 0.0
        if not math.isfinite(scale):
            continue
        if not torch.allclose(one, other, rtol=allowed, atol=allowed * scale, equal_nan=True):
            return False
    return True
