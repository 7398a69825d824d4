"""prune-structured on every kind of model and trap: smaller, told, reloaded, and the same bits at each making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, outputs, run, saved_and_loaded

EXPRESSIONS = ("prune-structured(ratio=0.5, heads=true)", "prune-structured(ratio=0.25, round_to=1)")


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_kind_of_model(expression: str, kind: str) -> None:
    model, inputs = make(kind)
    if kind == "tied":
        with pytest.raises(RecipeDidNothing, match="another module shares a weight with them"):
            apply(expression, model, inputs)
        return
    original, size = outputs(run(model, inputs)), sum(parameter.nbytes for parameter in model.parameters())
    optimization = apply(expression, model, inputs)
    variant = optimization.model
    answers = outputs(run(variant, inputs))
    assert [answer.shape for answer in answers] == [answer.shape for answer in original]
    assert sum(parameter.nbytes for parameter in variant.parameters()) < size
    assert 0 < optimization.coverage.share <= 1
    assert optimization.notes[0].startswith("removed ")
    reloaded = outputs(run(saved_and_loaded(variant), inputs))
    again = outputs(run(apply(expression, *make(kind)).model, inputs))
    for answer, one, other in zip(answers, reloaded, again, strict=True):
        assert torch.equal(answer, one)
        assert torch.equal(answer, other)


class Halves(nn.Module):
    """The halves of a convolution's output, each used again, joined with what was made of the second."""

    def __init__(self, sizes: int | tuple[int, int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Conv2d(16, 32, 1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(48, 16, 1)

    def forward(self, x: torch.Tensor) -> Any:
        parts = list(self.first(x).split(self.sizes, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


def detector(sizes: int | tuple[int, int]) -> nn.Module:
    stem, after = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3)
    layers = (stem, nn.ReLU(), Halves(sizes), nn.ReLU(), after, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(32, 4)).eval()


def upscaler() -> nn.Module:
    body, up = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
    return nn.Sequential(body, nn.ReLU(), up, nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, padding=1)).eval()


@pytest.mark.parametrize(
    ("make_model", "kept", "narrowed"),
    [
        (lambda: detector(16), "2.first,2.inner", {"0": 8, "2.last": 8, "4": 16}),
        (upscaler, "2", {"0": 16}),
    ],
    ids=["halves", "pixel shuffle"],
)
def test_layers_that_cannot_be_followed_are_named_and_kept(
    make_model: Callable[[], nn.Module], kept: str, narrowed: dict[str, int]
) -> None:
    def pruned(expression: str) -> tuple[nn.Module, str]:
        torch.manual_seed(0)
        optimization = apply(expression, make_model(), torch.randn(2, 3, 12, 12))
        return optimization.model, " | ".join(optimization.notes)

    model, notes = pruned("prune-structured(ratio=0.5)")
    keep = "keep their" if "," in kept else "keeps its"
    assert f"{keep} width: torch-pruning cannot follow which layers depend on them (IndexError: " in notes
    assert f"; keep='{kept}' spares them by name" in notes
    whole = dict(make_model().named_modules())
    widths = {name: len(module.weight) for name, module in model.named_modules() if hasattr(module, "weight")}
    assert {name: width for name, width in widths.items() if width < len(whole[name].weight)} == narrowed
    smaller, notes = pruned(f"prune-structured(ratio=0.5, keep='{kept}')")
    assert "cannot follow" not in notes
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(run(model, x), run(smaller, x))


class FixedWidths(nn.Module):
    """Turns around what its layers return, in rows of a width that the code knows."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(count))
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        for block in self.blocks:
            x = block(x).view(-1, 4, 4).flip(1).reshape(-1, 16)
        return self.last(x)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (2, "keep='blocks.0,blocks.1' spares them by name"),
        (4, "keep='blocks.0,blocks.1,blocks.2' spares the first 3 of 4 by name"),
    ],
)
def test_layers_whose_width_the_models_code_needs_are_named(count: int, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        apply("prune-structured(ratio=0.5)", FixedWidths(count).eval(), torch.randn(3, 16))
    assert str(error.value).endswith(
        f"the model's code does not let them get narrower (RuntimeError: shape '[-1, 4, 4]' is invalid for input of "
        f"size 24); {told}"
    )
    assert f"; {count} Linear (" in str(error.value)


def test_a_model_that_cannot_be_followed_at_all_is_refused_with_the_layer() -> None:
    with pytest.raises(RecipeError, match=r"depend on each other, after `2\.inner`: IndexError: .*`chunk` can be foll"):
        apply("prune-structured(ratio=0.5)", detector((16, 16)), torch.randn(2, 3, 12, 12))
