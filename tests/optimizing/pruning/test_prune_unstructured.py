"""prune-unstructured: 16-bit weights are pruned as others are, and layers without a weight of their own are named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, outputs, run, saved_and_loaded


class Mixed(nn.Module):
    """Three precisions."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.full, self.brain = nn.Linear(8, 16).half(), nn.Linear(16, 16), nn.Linear(16, 4).bfloat16()

    def forward(self, x: torch.Tensor) -> Any:
        return self.brain(self.full(self.small(x.half()).float()).bfloat16())


def test_sixteen_bit_weights_are_pruned_by_the_count() -> None:
    model = Mixed()
    types = [parameter.dtype for parameter in model.parameters()]
    notes = apply("prune-unstructured(ratio=0.25)", model, torch.randn(2, 8)).notes
    for layer in (model.small, model.full, model.brain):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 4
    assert [parameter.dtype for parameter in model.parameters()] == types
    assert f"{(128 + 256 + 64) // 4} of {128 + 256 + 64} weights in 3 Linear" in notes[0]
    assert "dense kernels do the same work and zeros take as much room in the file as other numbers" in notes[0]


def test_reparametrized_and_masked_layers_are_named() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    parametrizations.weight_norm(model[1])
    prune.random_unstructured(model[2], "weight", 0.5)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch.nn.utils.weight_norm` is deprecated")
        weight_norm(model[3])
    notes = apply("prune-unstructured", model, torch.randn(2, 8)).notes
    assert "32 of 64 weights in 1 Linear" in notes[0]
    for line in ("parametrize.remove_parametrizations", "prune.remove", "remove_weight_norm"):
        (note,) = [note for note in notes if f'{line}(layer, "weight")' in note]
        assert note.startswith("1 Linear (")


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
def test_every_kind_of_model(kind: str) -> None:
    model, inputs = make(kind)
    size = sum(parameter.nbytes for parameter in model.parameters())
    try:
        variant = apply("prune-unstructured(ratio=0.1)", model, inputs).model
    except RecipeError as error:
        pytest.fail(str(error))
    assert sum(parameter.nbytes for parameter in variant.parameters()) == size
    answers, reloaded = outputs(run(variant, inputs)), outputs(run(saved_and_loaded(variant), inputs))
    assert all(torch.equal(one, other) for one, other in zip(answers, reloaded, strict=True))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_weight_that_lies_in_another_order_is_pruned_in_that_order(scope: str) -> None:
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 4, 3), nn.Linear(100, 8)
    convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    linear.weight = nn.Parameter(torch.randn(100, 8).t())
    strides = convolution.weight.stride(), linear.weight.stride()
    expected = linear.weight.detach().clone()
    model = nn.Sequential(convolution, nn.Flatten(), linear).eval()
    apply(f"prune-unstructured(ratio=0.5, scope={scope})", model, torch.randn(2, 3, 7, 7))
    assert (convolution.weight.stride(), linear.weight.stride()) == strides
    assert int((linear.weight == 0).sum()) + int((convolution.weight == 0).sum()) == (800 + 108) // 2
    if scope == "layer":
        assert torch.equal(linear.weight, expected.where(expected.abs() > expected.abs().median(), 0.0))
