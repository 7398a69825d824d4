"""int8-static on models that write into their tensors: it answers as the model does, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import apply, relative_error, run


class Middle(nn.Module):
    """Two Linear layers with the code of a test between them."""

    def __init__(self, between: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.relu = nn.Linear(16, 32), nn.Linear(32, 8), nn.ReLU(inplace=True)
        self.between = between

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.between(self, self.first(x)))


def methods(_: Any, h: Any) -> Any:
    h.mul_(4)
    h.clamp_(min=0)
    return h


def chained(_: Any, h: Any) -> Any:
    h.sub_(3).div_(2)
    return h


def function(_: Any, h: Any) -> Any:
    F.relu_(h)
    return h


def by_keyword(_: Any, h: Any) -> Any:
    F.relu(h, inplace=True)
    return h


def by_position(_: Any, h: Any) -> Any:
    F.relu(h, True)
    return h


def to_out(_: Any, h: Any) -> Any:
    torch.add(h, 3, out=h)
    return h


def augmented(_: Any, h: Any) -> Any:
    h += 3
    return h


def module(model: Any, h: Any) -> Any:
    return model.relu(h) + h


def under_the_first_name(_: Any, h: Any) -> Any:
    written = h.add_(3)
    h.mul_(2)
    return written


@pytest.mark.parametrize(
    "between",
    [
        methods,
        chained,
        function,
        by_keyword,
        by_position,
        to_out,
        augmented,
        module,
        under_the_first_name,
        lambda _, h: h.zero_().add_(1),
    ],
)
def test_what_is_written_in_place_is_not_lost(between: Callable[[Any, Any], Any]) -> None:
    model, x = Middle(between).eval(), torch.randn(64, 16)
    original = run(model, x)
    assert relative_error(run(apply("int8-static", model, x).model, x), original) < 0.06


def test_an_input_that_is_written_to_is_not_lost() -> None:
    class Scaled(Middle):
        def forward(self, x: torch.Tensor) -> Any:
            x.sub_(128).div_(64)
            x.clamp_(-3, 3)
            return super().forward(x)

    model, x = Scaled(lambda _, h: h).eval(), torch.rand(64, 16) * 255
    original = run(model, x.clone())
    assert relative_error(run(apply("int8-static", model, x.clone()).model, x.clone()), original) < 0.06


def through_a_view(_: Any, h: Any) -> Any:
    h[:, :16].mul_(-4)
    return h


def seen_by_a_view(_: Any, h: Any) -> Any:
    before = h.view(-1, 2, 16)
    h.mul_(-2)
    return before.reshape(-1, 32)


def second_name(_: Any, h: Any) -> Any:
    other = h
    h += 3
    return other


def otherwise_when_traced(_: Any, h: Any) -> Any:
    return h + torch.linspace(-1, 1, 32) * (1 if isinstance(h, torch.Tensor) else -1)


@pytest.mark.parametrize("between", [through_a_view, seen_by_a_view, second_name, otherwise_when_traced])
def test_what_the_graph_cannot_show_is_refused(between: Callable[[Any, Any], Any]) -> None:
    model, x = Middle(between).eval(), torch.randn(64, 16)
    with pytest.raises(
        RecipeError, match=r"torch\.fx traced of Middle answers differently from the model .* differ by"
    ):
        apply("int8-static", model, x)


def test_a_model_that_never_answers_twice_the_same_is_not_refused() -> None:
    calls = iter(range(1000))

    def counted(_: Any, h: Any) -> Any:
        return h + next(calls)

    model, x = Middle(counted).eval(), torch.randn(64, 16)
    assert apply("int8-static", model, x).coverage.steps


@torch.fx.wrap
def tripled_(h: torch.Tensor) -> torch.Tensor:
    return h * 3


def test_a_function_named_like_one_that_writes_is_none() -> None:
    model, x = Middle(lambda _, h: tripled_(h) - h).eval(), torch.randn(64, 16)
    original = run(model, x)
    assert relative_error(run(apply("int8-static", model, x).model, x), original) < 0.06


def test_a_write_that_shows_in_another_input_is_refused() -> None:
    class Twice(Middle):
        def forward(self, x: torch.Tensor, same: Any = None) -> Any:
            x.div_(4)
            return super().forward(same.sub_(0.5))

    x = torch.randn(64, 16)
    with pytest.raises(RecipeError, match="a write in place has to show in a view or under a second name"):
        apply("int8-static", Twice(lambda _, h: h).eval(), (x, x))
