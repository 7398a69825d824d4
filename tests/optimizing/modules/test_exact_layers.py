"""Models whose forward asks what its layers are: a layer that decides by that on the path is left alone, no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.optimizing.recipe_models import apply, relative_error, run

INT8 = 0.06
"""Relative to the largest answer; the other path changes it by a third."""
REASON = "its forward asks for their class or an attribute"


class Asking(nn.Module):
    def __init__(self, first: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.fc = nn.Embedding(50, 64), nn.Linear(64, 64)
        self.hidden, self.head = nn.Linear(64, 128), nn.Linear(128, 8)
        for layer in (self.fc, self.hidden):  # of a low rank, so that factors hold them exactly
            with torch.no_grad():
                layer.weight.copy_(torch.randn(len(layer.weight), 4) @ torch.randn(4, 64) / 16)
        self.first, self.calls = first, 0

    def forward(self, ids: torch.Tensor) -> Any:
        return self.head(torch.relu(self.hidden(torch.relu(self.first(self, self.embed(ids).mean(1))))))


def asks(question: Callable[[Any], bool]) -> Callable[[Any, torch.Tensor], Any]:
    return lambda model, x: model.fc(x) * (1.0 if question(model.fc) else 1.5)


def counts(model: Any, x: torch.Tensor) -> Any:
    model.calls += 1
    return model.fc(x) * model.calls


QUESTIONS: dict[str, Callable[[Any], bool]] = {
    "isinstance": lambda layer: isinstance(layer, nn.Linear),
    "type": lambda layer: type(layer) is nn.Linear,
    "hasattr": lambda layer: hasattr(layer, "weight"),
    "dtype": lambda layer: getattr(getattr(layer, "weight", None), "dtype", None) is torch.float32,
    "parameter": lambda layer: isinstance(getattr(layer, "weight", None), nn.Parameter),
}
CHANGES_PATH = {
    "int8-dynamic": {"isinstance", "type", "dtype", "parameter"},
    "int8-weight-only": {"isinstance", "type", "parameter"},
    "low-rank(ratio=0.5)": set(QUESTIONS),
}
"""By what the modules are that each recipe puts in: `weight` of a packed layer is a method, factors have none."""
IDS = torch.randint(0, 50, (8, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("recipe", CHANGES_PATH)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_layer_is_left_alone_where_the_model_goes_another_way_without_it(recipe: str, question: str) -> None:
    def make() -> nn.Module:
        return Asking(asks(QUESTIONS[question])).eval()

    done = apply(recipe, make(), IDS)
    changed = {layer.name for layer in done.coverage.layers if layer.changed_bytes}
    is_left = question in CHANGES_PATH[recipe]
    assert ("fc" in changed, "hidden" in changed) == (not is_left, True)
    assert sum(note.startswith("1 Linear (16.2 KiB)") and REASON in note for note in done.notes) == is_left
    assert relative_error(run(done.model, IDS), run(make(), IDS)) <= INT8


OTHERWISE: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "calls forward itself": lambda model, x: model.fc.forward(x),
    "draws numbers": lambda model, x: model.fc(x) + torch.randn(64),
    "counts its calls": counts,
    "reads the weight": lambda model, x: model.fc(x) + nn.functional.linear(x, model.fc.weight),
}


@pytest.mark.parametrize("first", OTHERWISE)
def test_a_model_that_asks_nothing_keeps_none_of_its_layers(first: str) -> None:
    done = apply("int8-weight-only", Asking(OTHERWISE[first]).eval(), IDS)
    assert {layer.name for layer in done.coverage.layers if layer.changed_bytes} == {"embed", "fc", "hidden", "head"}
