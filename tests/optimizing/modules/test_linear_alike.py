"""Layers of other classes that compute what nn.Linear does: recipes take them as one, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from pytest_modelopt.optimizing.modules.linear_alike import LinearAlike
from tests.optimizing.recipe_models import MyLinear, apply, relative_error, run, saved_and_loaded

FLOAT32 = 4
INPUTS, OUTPUTS = 64, 96


class OwnNames(nn.Module):
    """The same arithmetic as Conv1D's, by other names and another operator."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(INPUTS, OUTPUTS))
        self.shift = nn.Parameter(torch.randn(OUTPUTS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.kernel + self.shift


class NoBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(OUTPUTS, INPUTS))
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...i,oi->...o", x, self.table)


class Derived(nn.Linear):
    """As libraries derive it: another initialization, the same forward."""


class Clamped(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).clamp(max=50)


class Scaled(OwnNames):
    """A buffer takes part, which a Linear has no place for."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale  # type: ignore[operator]


class Around(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(OUTPUTS, 8)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.layer(x)))


class Reads(Around):
    """Looks into the layer as its class lets it."""

    def forward(self, x: torch.Tensor) -> Any:
        layer: Any = self.layer
        return super().forward(x) + layer.kernel.sum()


ALIKE: dict[str, Callable[[], nn.Module]] = {
    "Conv1D": lambda: Conv1D(OUTPUTS, INPUTS),
    "OwnNames": OwnNames,
    "NoBias": NoBias,
    "Derived": lambda: Derived(INPUTS, OUTPUTS),
}
RECIPES = {
    "int8-dynamic": 0.05,
    "int8-static": 0.05,
    "int8-weight-only": 0.05,
    "torchao-int8-weight-only": 0.05,
    "torchao-int8-weight-only(group=32)": 0.05,
    "torchao-int8-dynamic": 0.05,
    "low-rank(energy=0.999)": 0.1,
    "prune-unstructured(ratio=0.1)": 0.2,
    "low-rank(energy=0.999) + int8-dynamic": 0.1,
}


def made(layer: nn.Module, model: Callable[[nn.Module], nn.Module] = Around) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            rows, columns = len(parameter), parameter.numel() // len(parameter)  # of a rank that a factorization keeps
            parameter.copy_((torch.randn(rows, 8) @ torch.randn(8, columns) * 0.1).view_as(parameter))
    return model(layer).eval(), torch.randn(6, INPUTS)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ALIKE)
def test_recipes_of_linear_take_them_with_their_names_and_bytes(kind: str, recipe: str) -> None:
    model, x = made(ALIKE[kind]())
    before = run(model, x)
    optimization = apply(recipe, model, x)
    assert relative_error(run(optimization.model, x), before) < RECIPES[recipe]
    changed = {layer.name: layer.changed_bytes for layer in optimization.coverage.layers}
    assert changed["layer"] >= INPUTS * OUTPUTS * FLOAT32
    if kind != "Derived":
        assert f"1 {kind} (" in optimization.notes[0]
        assert "taken as Linear: each answers as one does" in optimization.notes[0]
    again = run(saved_and_loaded(optimization.model), x)
    assert torch.equal(again, run(optimization.model, x))


@pytest.mark.parametrize("kind", ALIKE)
def test_what_keeps_its_form_is_of_its_own_class_again(kind: str) -> None:
    model, x = made(ALIKE[kind]())
    names = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    attributes = set(vars(model.layer))
    variant = apply("prune-unstructured(ratio=0.5)", model, x).model
    assert type(variant.layer) is type(ALIKE[kind]())
    assert {name: tuple(tensor.shape) for name, tensor in variant.state_dict().items()} == names
    assert set(vars(variant.layer)) == attributes
    zeros = sum(int((tensor == 0).sum()) for tensor in variant.layer.parameters() if tensor.dim() > 1)
    assert zeros == INPUTS * OUTPUTS // 2
    assert all(tensor.is_contiguous() for tensor in variant.parameters())


def test_channels_of_it_are_pruned_and_those_named_in_keep_are_not() -> None:
    variant = apply("prune-structured(ratio=0.5)", *made(Conv1D(OUTPUTS, INPUTS))).model
    assert variant.layer.weight.shape == (OUTPUTS // 2, INPUTS)
    assert variant.head.weight.shape == (8, OUTPUTS // 2)
    with pytest.raises(ValueError, match="named in keep"):
        apply("prune-structured(ratio=0.5, keep='layer')", *made(Conv1D(OUTPUTS, INPUTS)))


@pytest.mark.parametrize("layer", [Clamped(INPUTS, OUTPUTS), Scaled(), MyLinear(INPUTS, OUTPUTS)])
def test_what_computes_something_else_somewhere_stays(layer: nn.Module) -> None:
    model, x = made(layer)
    x *= 0.01  # on these, the clamp does nothing
    before = run(layer, x)
    variant = apply("int8-dynamic", model, x).model
    assert variant.layer is layer
    assert torch.equal(run(variant.layer, x), before)


def test_a_layer_whose_weight_the_model_reads_by_its_name_stays() -> None:
    model, x = made(OwnNames(), Reads)
    optimization = apply("int8-dynamic", model, x)
    assert type(optimization.model.layer) is OwnNames
    assert "taken as Linear" not in " ".join(optimization.notes)


def test_a_weight_that_another_layer_holds_keeps_its_form() -> None:
    class Tied(Around):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__(layer)
            self.table = nn.Embedding(INPUTS, OUTPUTS)
            self.table.weight = layer.weight  # type: ignore[assignment]

    model, x = made(Conv1D(OUTPUTS, INPUTS), Tied)
    variant = apply("int8-dynamic", model, x).model
    assert type(variant.layer) is Conv1D
    assert variant.layer.weight is variant.table.weight


def test_the_guard_on_hooks_holds_for_it() -> None:
    model, x = made(Conv1D(OUTPUTS, INPUTS))
    model.layer.register_forward_hook(lambda _module, _inputs, output: output + 1)  # type: ignore[union-attr]
    optimization = apply("int8-dynamic", model, x)
    assert type(optimization.model.layer) is Conv1D
    assert "they carry forward hooks" in " ".join(optimization.notes)
    assert list(optimization.coverage.steps[0].unlike_class) == ["layer"]


def test_the_numbers_lie_as_a_linears_and_once() -> None:
    layer = Conv1D(OUTPUTS, INPUTS)
    weight = layer.weight
    model, x = made(layer)
    LinearAlike(model, x).lend()
    lent: Any = model.layer
    assert type(lent) is nn.Linear
    assert lent.weight.is_contiguous()
    assert lent.weight.data_ptr() == weight.data_ptr()
    assert torch.equal(lent.weight, weight.t())
    assert F.linear(x, lent.weight, lent.bias).shape == (6, OUTPUTS)
