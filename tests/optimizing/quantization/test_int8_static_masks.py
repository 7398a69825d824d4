"""int8-static where forward computes masks and whole numbers, for which torch's observers have no ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.optimizing.recipe_models import apply, relative_error, run

FORWARDS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "a mask of the answer": lambda h, x: h * (h > 0),
    "of another tensor": lambda h, x: h * (x > -1).any(1, keepdim=True),
    "two masks": lambda h, x: h * ((h > -1) * (h < 1)),
    "in another form": lambda h, x: h * (x > 0).unsqueeze(1).repeat(1, 2, 1).transpose(1, 2)[..., 0],
    "put together": lambda h, x: h + torch.cat([x[:, :16] > 0, x[:, 16:] < 0], 1),
    "whole numbers": lambda h, x: h + (x > 0).sum(1, keepdim=True),
    "filled": lambda h, x: h.masked_fill(h < 0, 0.0),
    "forbidden": lambda h, x: (h + torch.where(x > 0, -torch.inf, 0.0)).softmax(1),
    "forbidden before a product": lambda h, x: (h + torch.where(x > 0, -torch.inf, 0.0)).softmax(1) @ h.t() @ h,
    "chosen": lambda h, x: torch.where(h > 0, h, 0.1 * h),
}


class Masking(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before, self.after, self.kind = nn.Linear(32, 32), nn.Linear(32, 10), kind

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.after(FORWARDS[self.kind](self.before(x), y))


@pytest.mark.parametrize("kind", FORWARDS)
def test_all_layers_are_quantized_around_masks(kind: str) -> None:
    torch.manual_seed(0)
    model = Masking(kind).eval()
    inputs = {"y": torch.randn(6, 32), "x": torch.randn(6, 32)}  # not in the order of forward's parameters
    original = run(model, inputs)
    optimization = apply("int8-static", model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < 0.06
    assert {layer.name for layer in optimization.coverage.layers if layer.changed_bytes} == {"before", "after"}
