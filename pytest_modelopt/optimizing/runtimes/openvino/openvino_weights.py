"""Which of a model's weights became int8 in OpenVINO, and which are still there in float32 with other numbers.

On the way to int8 float32 numbers change for other reasons, too: batch norms are folded into convolutions, biases are
corrected, activations are smoothed into weights. So what became int8 is read off the graph: NNCF keeps its operations,
and an operation's input that was a float32 constant before and is an integer constant now was quantized. The model's
weights are then found among the float32 constants of before: by their numbers or, folded, as the same channels scaled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.coverage import Numbers
from pytest_modelopt.optimizing.runtimes.folding import is_made_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Place = tuple[str, int]
"""An input of an operation, by the operation's name and the number of the input."""

BETWEEN = {"Convert", "Multiply", "Subtract", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "FakeQuantize"}
"""Operations that stand between a constant and the operation that uses it: a scale, a zero point, a layout."""

RECURRENT = {"LSTMSequence": "LSTM", "GRUSequence": "GRU", "RNNSequence": "RNN"}

SAME_DIRECTION = 1 - 1e-6
"""The least squared cosine of two channels that are the same but for their scale."""


@dataclass(frozen=True)
class Before:
    """The float32 constants of a model that is about to be quantized, by where they are used."""

    constants: dict[Place, torch.Tensor]
    types: dict[str, str]
    """The type of each operation."""

    @classmethod
    def of(cls, ir: Any) -> Before:
        """Names the operations of `ir` uniquely, which quantization keeps."""
        import torch

        operations = ir.get_ordered_ops()
        for index, operation in enumerate(operations):
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
        constants = {
            place: torch.from_numpy(constant.get_data().copy())
            for place, constant in _constants(operations)
            if constant.get_element_type().to_string() == "f32"
        }
        return cls(constants, {op.get_friendly_name(): op.get_type_name() for op in operations})

    def operations_of(self, weights: Sequence[torch.Tensor]) -> list[str]:
        """Names of the operations that work with one of these weights."""
        found = (place for place, constant in self.constants.items() if is_made_of(constant, weights))
        return list(dict.fromkeys(name for name, _ in found))

    def compared_with(self, quantized: Any) -> Quantized:
        """What `quantized`, made of the same model, holds in integers now."""
        integers = {
            place
            for place, constant in _constants(quantized.get_ordered_ops())
            if constant.get_element_type().is_integral()
        }
        became = {place for place in self.constants if place in integers}
        return Quantized(
            [self.constants[place] for place in became],
            [tensor for place, tensor in self.constants.items() if place not in became],
            frozenset(RECURRENT[self.types[name]] for name, _ in became if self.types[name] in RECURRENT),
        )


@dataclass(frozen=True)
class Quantized:
    """The float32 constants of before that are integers now, and those that are not."""

    integers: list[torch.Tensor]
    floats: list[torch.Tensor]
    recurrent: frozenset[str]
    """Which kinds of recurrent layers hold quantized weights: 'LSTM', 'GRU', 'RNN'."""

    def kept(self, model: nn.Module) -> Kept:
        """The weights of `model` that were not quantized."""
        integers, floats = Numbers(self.integers), Numbers(self.floats)
        kept, unknown = [], []
        for name, weight in model.named_parameters():
            tensor = weight.detach()
            if tensor.dim() < 2 or not tensor.numel():
                kept.append(name)  # biases, norms and scales, whatever they are folded into or corrected by
            elif integers.holds(tensor):
                continue
            elif floats.holds(tensor) or any(_is_scaled(tensor, constant) for constant in self.floats):
                kept.append(name)
            elif not any(_is_scaled(tensor, constant) for constant in self.integers):
                unknown.append(name)
        return Kept(tuple(kept), tuple(unknown))


@dataclass(frozen=True)
class Kept:
    """Names of the parameters that are still in float32, and of those that were not found again in OpenVINO."""

    known: tuple[str, ...]
    unknown: tuple[str, ...]

    def without(self, names: Collection[str]) -> Kept:
        """What is told of them beside these."""
        return Kept(*(tuple(each for each in part if each not in names) for part in (self.known, self.unknown)))


def _constants(operations: list[Any]) -> Iterator[tuple[Place, Any]]:
    for operation in operations:
        if operation.get_type_name() == "Constant":
            continue
        for index, port in enumerate(operation.inputs()):
            source = port.get_source_output().get_node()
            while source.get_type_name() in BETWEEN:
                source = source.input(0).get_source_output().get_node()
            if source.get_type_name() == "Constant":
                yield (operation.get_friendly_name(), index), source


def _is_scaled(weight: torch.Tensor, constant: torch.Tensor) -> bool:
    """Whether `constant` is `weight` with each channel, along some dimension, times a number of its own."""
    if weight.numel() != constant.numel():
        return False
    layouts = [constant.reshape(weight.shape)]
    if weight.dim() == 2:
        layouts.append(constant.reshape(weight.shape[::-1]).t())
    return any(
        _same_directions(weight.movedim(dimension, 0).flatten(1), layout.movedim(dimension, 0).flatten(1))
        for layout in layouts
        for dimension in range(weight.dim())
    )


def _same_directions(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape[1] < 2:  # any two numbers have the same direction
        return False
    one, other = one.double(), other.double()
    products = (one * other).sum(1).square()
    return bool((products >= SAME_DIRECTION * one.square().sum(1) * other.square().sum(1)).all())
