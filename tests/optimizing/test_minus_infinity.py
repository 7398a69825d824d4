"""Scores of forbidden answers are -inf on purpose: every recipe takes them for what they are."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.finite import largest_difference, lost_answers
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.optimizing.registry import RECIPES
from tests.optimizing.recipe_models import apply, run

INF = math.inf


class Masked(nn.Module):
    """Every third class is forbidden; a causal mask is returned beside the scores."""

    forbidden: torch.Tensor
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv1d(4, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(512, 12)
        self.register_buffer("forbidden", torch.arange(12) % 3 == 0)
        self.register_buffer("mask", torch.full((8, 8), -INF).triu(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(self.body(x)).masked_fill(self.forbidden, -INF), self.mask + 0.0 * x[:, :1]


class Added(nn.Module):
    """Adds the -inf of what is forbidden."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 6))
        self.register_buffer("mask", torch.tensor([0.0, -INF, 0.0, 0.0, -INF, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.body(x) + self.mask)


@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static", "bf16"])
def test_what_is_forbidden_by_a_sum_stays_forbidden(recipe: str) -> None:
    torch.manual_seed(0)
    model, x = Added().eval(), torch.randn(16, 8)
    before = run(model, x)
    after = run(apply(recipe, model, x).model, x)
    assert torch.equal(after.isneginf(), before.isneginf())
    allowed = before.isfinite()
    assert float((after[allowed] - before[allowed]).abs().max() / before[allowed].abs().max()) < 0.06


class Dizzy(Masked):
    """Adds up one score with the other of two infinities where batch norm is folded."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, mask = super().forward(x)
        return scores + (0.0 if isinstance(self.body[1], nn.BatchNorm1d) else INF), mask


@pytest.mark.parametrize(
    "recipe",
    [
        "fold-batchnorm",
        "int8-dynamic",
        "int8-static",
        "int8-weight-only",
        "prune-unstructured(ratio=0.1)",
        "prune-structured(ratio=0.1)",
        "low-rank(ratio=0.9)",
        "channels-last",
        "bf16",
        "onnxruntime",
        "openvino",
        "litert",
    ],
)
def test_a_masked_model_stays_one(recipe: str) -> None:
    known = RECIPES[recipe.partition("(")[0]]
    if known.missing() or known.unfit("cpu"):
        pytest.skip(known.missing() or known.unfit("cpu"))
    model, x = Masked().eval(), torch.randn(16, 4, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before, _ = model(x)
    if recipe == "channels-last":
        with pytest.raises(RecipeError, match="changed nothing"):
            apply(recipe, model, x)  # no two-dimensional convolution; and no refusal of infinities
        return
    optimized = apply(recipe, model, x).model
    with torch.inference_mode():
        after, mask = optimized(x)
    forbidden = torch.arange(12) % 3 == 0
    assert bool((after[:, forbidden] < -1e4).all())
    assert bool((mask[:, 0, 1:] < -1e4).all())
    assert bool(after[:, ~forbidden].isfinite().all())
    if not recipe.startswith(("prune-structured", "low-rank")):  # nothing was trained here: these change a lot
        assert float((after - before)[:, ~forbidden].abs().max()) < 0.5 * float(before[:, ~forbidden].abs().max())


def test_infinities_that_only_the_variant_has_are_refused() -> None:
    x = torch.randn(16, 4, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(RecipeError, match="the answers differ by inf"):
        apply("fold-batchnorm", Dizzy().eval(), x)


@pytest.mark.parametrize(
    ("before", "after", "is_lost"),
    [
        ([1.0, -INF], [1.0, -INF], False),
        ([1.0, -INF], [1.0, -3e38], False),
        ([1.0, INF], [1.0, INF], False),
        ([1.0, math.nan], [1.0, math.nan], False),
        ([1.0, 2.0], [1.0, -INF], True),
        ([1.0, 2.0], [1.0, math.nan], True),
        ([1.0, -INF], [1.0, math.nan], True),
        ([1.0, -INF], [1.0, INF], True),
    ],
)
def test_what_is_lost(before: list[float], after: list[float], is_lost: bool) -> None:
    pair = torch.tensor(before), torch.tensor(after)
    assert lost_answers(*pair) is is_lost
    assert largest_difference(*pair) == ((INF, 0.0) if is_lost else (0.0, 1.0 if not math.isfinite(before[1]) else 2.0))
