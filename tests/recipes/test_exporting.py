"""What all converting recipes share: inputs from which a program for any size is made, and reasons in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipe_models import relative_error, run
from torch import nn

from pytest_modelopt.recipes.base import Context
from pytest_modelopt.recipes.expression import parse
from pytest_modelopt.recipes.optimize import optimize


class Pairs(nn.Module):
    """Takes tokens, and for each of them two features: sizes of which one is always twice the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.mix = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(features.reshape(tokens.shape[0], tokens.shape[1], 4))
        return self.head((self.embed(tokens) + mixed).mean(1))  # type: ignore[no-any-return]


def pairs(examples: int, length: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    return {
        "tokens": torch.randint(0, 50, (examples, length), generator=generator),
        "features": torch.randn(examples, 2 * length, 2, generator=generator),
    }


LENGTHS = (1, 1, 7, 2, 12)


@pytest.mark.parametrize("form", [dict, tuple])
@pytest.mark.parametrize("recipe", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1]], ids=["shortest first", "longest first"])
def test_a_model_is_converted_whatever_the_length_of_the_first_sentence(
    lengths: tuple[int, ...], recipe: str, form: Any
) -> None:
    torch.manual_seed(0)
    model = Pairs().eval()
    batches = [pairs(3, length) for length in lengths]
    given: list[Any] = [batch if form is dict else tuple(batch.values()) for batch in batches]
    first: Any = pairs(1, lengths[0]) if form is dict else tuple(pairs(1, lengths[0]).values())
    varying = (frozenset({1}), frozenset({1}))
    context = Context(first, None, seed=0, varying=lambda: varying, batches=lambda: iter([first, *given]))
    originals = [run(model, batch) for batch in given]
    variant = optimize(model, parse(recipe), context).model
    for batch, original in zip(given, originals, strict=True):
        assert relative_error(run(variant, batch), original) < 1e-5


def test_where_no_batch_is_longer_the_examples_are_doubled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    context = Context(torch.randn(1, 2, 1), None, seed=0, varying=lambda: (frozenset({2}),))
    inputs = torch.randn(3, 2, 5)
    original = run(model, inputs)
    variant = optimize(model, parse("onnxruntime"), context).model
    assert relative_error(run(variant, inputs), original) < 1e-5
