"""The module that recipes change, in the model that is called: found, told what it gets, and replaced."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.calls.called_model import CalledModel
from pytest_modelopt.measuring.worker.calls.changed_part import context_of
from pytest_modelopt.measuring.worker.calls.part import Part
from pytest_modelopt.optimizing.recipe import Context, RecipeError


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, doubled: bool = False) -> torch.Tensor:
        y: torch.Tensor = self.layer(x) * (2 if doubled else 1)
        return y if mask is None else y * mask


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = self.encoder
        self.unused = nn.Linear(2, 2)
        self.again = [self.encoder]

    def forward(self, x: torch.Tensor) -> Any:
        return self.encoder(x, mask=torch.ones(4), doubled=False)


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def called(function: Any) -> CalledModel:
    torch.manual_seed(0)
    return CalledModel(Model().eval(), function, "shop:answer")


def twice(model: Any, inputs: Any) -> Any:
    return model.encoder(inputs)[:1] + model.encoder(inputs[:1])


def test_it_gets_what_the_whole_call_gives_it_without_what_are_defaults_anyway() -> None:
    model = Model().eval()
    (given,) = Part(model, "encoder").inputs_of_calls(X)
    assert list(given) == ["x", "mask"]
    assert torch.equal(given["x"], X)
    assert torch.equal(given["mask"], torch.ones(4))


def test_all_of_its_calls_are_told_and_of_other_batches_the_first_without_running_it() -> None:
    part = Part(called(twice), "encoder")
    assert [tuple(each.shape) for each in part.inputs_of_calls(X)] == [(3, 4), (1, 4)]
    assert any("is called 2 times in each call" in note for note in part.notes(2))
    part.module.layer = nn.Linear(9, 9)
    assert torch.equal(part.first_inputs(X), X), "half changed by a recipe, it would not run"
    assert not part.module._forward_pre_hooks, "recipes leave modules with hooks alone"


def test_what_is_made_takes_its_place_wherever_it_stood() -> None:
    whole, new = called(twice), Encoder().eval()
    part = Part(whole, "encoder")
    part.inputs_of_calls(X)
    assert any("`encoder` is `decoder`, too" in note for note in part.notes(1))
    part.put(new, X, "a recipe")
    assert whole.seen.encoder is whole.seen.decoder is new


def test_what_takes_keywords_only_is_called_as_it_was_given_to_recipes() -> None:
    class Made(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *, x: torch.Tensor, mask: torch.Tensor) -> Any:
            return self.inner(x, mask)

    model = Model().eval()
    expected = model(X)
    part = Part(model, "encoder")
    part.inputs_of_calls(X)
    part.put(Made(model.encoder), X, "a converter")
    assert torch.equal(model(X), expected)
    assert part.module is model.encoder


def listed(model: Any, inputs: Any) -> Any:
    return model.encoder(inputs) + model.again[0](inputs)


def unused_too(model: Any, inputs: Any) -> Any:
    return model(inputs) + model.unused.weight.sum()


def failing(model: Any, inputs: Any) -> Any:
    return inputs["words"]


def test_what_converts_a_module_asks_for_the_same_arguments_in_each_call() -> None:
    def masked_once(model: Any, inputs: Any) -> Any:
        return model.encoder(x=inputs, mask=torch.ones(4)) + model.encoder(x=inputs)

    part = Part(called(masked_once), "encoder")
    context = context_of(part, Context(X, None, 0), part.inputs_of_calls(X))
    with pytest.raises(
        RecipeError, match=r"`encoder` is called with other arguments .* \(`mask` is not in all of them\)"
    ):
        context.varying()


@pytest.mark.parametrize(
    ("function", "path", "told"),
    [
        (twice, "encodr", "`optimize: encodr`: the model has no `encodr`; did you mean `encoder`?"),
        (twice, "encoder.q", "`encoder` has no `q`; it has `layer`"),
        (twice, "again", "`optimize: again` is a list, not a torch.nn.Module; modules are `encoder`, `unused`"),
        (twice, "unused", "the call never calls it, or only its methods; a call reaches `encoder`, `encoder.layer`"),
        (twice, "", "the call never calls the model itself"),
        (failing, "encoder", "`shop:answer` raises "),
        (failing, "encoder", "(test_part.py:"),
        (listed, "encoder", "the model holds `encoder` in a second place to which no attribute leads"),
        (unused_too, "", "has no attribute 'unused'"),
        (unused_too, "", "name the module that recipes change by `optimize:`, of which a call reaches `encoder`"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_each_mistake_is_one_sentence(function: Any, path: str, told: str) -> None:
    def replaced() -> None:
        part = Part(called(function), path)
        part.inputs_of_calls(X)
        part.put(Encoder().eval(), X, "a recipe")

    with pytest.raises(RecipeError, match=re.escape(told)) as caught:
        replaced()
    assert "\n" not in str(caught.value)
