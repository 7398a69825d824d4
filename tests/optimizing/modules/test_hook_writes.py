"""Hooks of a model that write its weights or buffers in each call: a recipe does what they do, or names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.modules.hook_writes import hook_writes
from pytest_modelopt.optimizing.quantization import torch_ao, torchao_pt2e_int8
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import apply, relative_error, run

INT8 = 0.12
"""Relative to the largest answer: what rounding to int8 costs where inputs take half of the calibrated range. What a
hook does here changes an answer by half or more.
"""
HALF = 0.5
"""Inputs by which a graph is told that keeps what the measured call wrote."""


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        self.direction = nn.Parameter(torch.randn(64, 16))
        self.length = nn.Parameter(torch.rand(64, 1) + 0.5)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.ones(1))

    def weight(self) -> Any:
        return self.direction * (self.length / self.direction.norm(dim=1, keepdim=True))

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.second(torch.relu(self.first(x))))) * self.scale


class Rescaling(Body):
    """Without a hook: the forward itself writes what it then reads."""

    def forward(self, x: torch.Tensor) -> Any:
        self.scale.copy_(x.abs().mean().reshape(1))
        return super().forward(x)


def normed_in_place(body: Body, _: Any) -> None:
    with torch.no_grad():
        body.first.weight.copy_(body.weight())


def normed_by_data(body: Body, _: Any) -> None:
    body.first.weight.data = body.weight().detach()


def normed_anew(body: Body, _: Any) -> None:
    body.first.weight = nn.Parameter(body.weight().detach())


def scaled_by_inputs(body: Body, args: Any) -> None:
    body.scale.copy_(args[0].abs().mean().reshape(1))


def scaled_by_number(body: Body, args: Any) -> None:
    body.scale.fill_(float(args[0].abs().mean()))


def doubled(_: Body, args: Any) -> Any:
    return (args[0] * 2,)


def hooked(hook: Callable[..., Any]) -> Body:
    body = Body().eval()
    body.register_forward_pre_hook(hook)
    return body


INPUTS = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
NORMED = (normed_in_place, normed_by_data, normed_anew)


def wrong(recipe: str, make: Callable[[], nn.Module]) -> tuple[float, str]:
    """How far the variant is from the model on other inputs than the measured ones, and the recipe's notes."""
    done = apply(recipe, make(), INPUTS)
    return relative_error(run(done.model, INPUTS * HALF), run(make(), INPUTS * HALF)), " ".join(done.notes)


@pytest.mark.parametrize("recipe", ["int8-static", "int8-dynamic", "int8-weight-only"])
@pytest.mark.parametrize("hook", NORMED)
def test_a_layer_whose_weight_is_written_is_left_alone_and_the_hook_is_named(
    recipe: str, hook: Callable[..., Any]
) -> None:
    error, notes = wrong(recipe, lambda: hooked(hook))
    assert error <= INT8
    assert f"the forward pre-hook `{hook.__name__}` of Body writes `first.weight` in each call" in notes
    assert "remove the hook (`handle.remove()`)" in notes


@pytest.mark.parametrize(
    "make", [lambda: hooked(scaled_by_inputs), lambda: hooked(doubled), lambda: Rescaling().eval()]
)
@pytest.mark.parametrize("is_part", [False, True])
def test_a_traced_graph_does_what_a_hook_of_the_whole_model_does(make: Callable[[], nn.Module], is_part: bool) -> None:
    def whole() -> nn.Module:
        return nn.Sequential(make(), nn.Identity()).eval() if is_part else make()

    assert wrong("int8-static", whole)[0] <= INT8


def test_a_hook_that_no_trace_can_follow_is_named_with_its_buffer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        RecipeError, match=r"`scaled_by_number` of Body writes `scale` in each call.*compute it in forw"
    ):
        apply("int8-static", hooked(scaled_by_number), INPUTS)
    with pytest.raises(RecipeError, match=r"`scaled_by_number` of `0` \(Body\) writes `0.scale`"):
        apply("int8-static", nn.Sequential(hooked(scaled_by_number)).eval(), INPUTS)
    with pytest.raises(RecipeError, match="`scaled_by_number` of Body writes `scale`"):
        apply("onnxruntime", hooked(scaled_by_number), INPUTS)
    assert "def forward" not in capsys.readouterr().err, "torch prints its graph beside the error"


def test_a_program_that_writes_a_weight_is_converted() -> None:
    model = hooked(normed_in_place)
    with torch.no_grad():
        graph: Any = torch.export.export(model, (INPUTS,)).module()
    with torch_ao.quiet():
        prepared, _ = torchao_pt2e_int8._prepared(graph, set())
        run(prepared, INPUTS)
        converted = torchao_pt2e_int8._converted(prepared)
    assert relative_error(run(converted, INPUTS), run(model, INPUTS)) <= INT8


def test_what_no_hook_writes_is_nobody_s() -> None:
    assert not hook_writes(hooked(doubled), INPUTS)
    assert [each.tensors for each in hook_writes(hooked(normed_in_place), INPUTS)] == [("first.weight",)]
