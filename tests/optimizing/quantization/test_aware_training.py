"""Quantization-aware training: what it sees is what ships, what it is for, and that it leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.quantization.aware_training import TrainsQuantized, answer_as_quantized
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import Optimized, apply, make, outputs, run, saved_and_loaded

RECIPES = ("int8-dynamic", "int8-weight-only", "torchao-int8-dynamic", "torchao-int8-weight-only(group=16)")
TRAINING = """
import copy, torch

seen = []

def nothing(model, batches):
    pass

def looks(model, batches):
    with torch.no_grad():
        model.eval()
        inputs, _ = next(batches())
        seen[:] = [model(inputs), [type(module).__name__ for module in model.modules()]]

def one_step(model, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = next(batches())
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    seen[:] = [{name for name, each in model.named_parameters() if each.grad is not None}]
    optimizer.step()
    return copy.deepcopy(model)

def train(model, batches):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100):
        for inputs, targets in batches():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

def writes_to_kept(model, batches):
    model[0].weight.data.mul_(2)
"""


@pytest.fixture(autouse=True)
def training_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "aware.py").write_text(TRAINING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("aware", None)


def trained(expression: str, model: nn.Module, inputs: Any, targets: torch.Tensor | None = None) -> Optimized:
    labels = torch.zeros(len(outputs(run(model, inputs))[0]), dtype=torch.long) if targets is None else targets
    context = Context(inputs, lambda: iter([inputs]), seed=0, training=lambda: iter([(inputs, labels)]))
    return cast("Optimized", optimize(model, parse(expression).steps, context))


def with_finetune(recipe: str, function: str) -> str:
    return f"{recipe.removesuffix(')')}{', ' if '(' in recipe else '('}finetune='aware:{function}')"


@pytest.fixture
def _unfused() -> Iterator[None]:
    with unfused():
        yield


@pytest.mark.usefixtures("_unfused")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["mlp", "encoder", "lstm", "cnn"])
def test_the_training_sees_bit_by_bit_what_ships_and_without_a_step_it_is_the_plain_variant(
    recipe: str, kind: str
) -> None:
    plain_model, inputs = make(kind)
    plain = apply(recipe, plain_model, inputs)
    before = [type(module).__name__ for module in plain.model.modules()]
    for function in ("nothing", "looks"):
        variant = trained(with_finetune(recipe, function), make(kind)[0], inputs)
        answers = outputs(run(variant.model, inputs))
        assert all(map(torch.equal, answers, outputs(run(plain.model, inputs))))
        assert [type(module).__name__ for module in variant.model.modules()] == before
        assert not any(module.training for module in variant.model.modules())
        assert variant.coverage.layers == plain.coverage.layers
    seen, classes = sys.modules["aware"].seen
    assert all(map(torch.equal, outputs(seen), answers))
    assert any(name.startswith("Aware") for name in classes)
    assert all(map(torch.equal, outputs(run(saved_and_loaded(variant.model), inputs)), answers))


def with_an_outlier() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A classifier that is always right, one hidden unit of which is 60 times as large as all others: by one scale for
    the whole weight, these have two steps left."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 16)
    targets = (inputs @ torch.randn(16, 6)).argmax(1)
    first, last = nn.Linear(16, 48), nn.Linear(48, 6)
    model = nn.Sequential(first, nn.ReLU(), last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        first.weight[0] *= 60
        first.bias[0] *= 60
        last.weight[:, 0] /= 60
    return model.eval(), inputs, targets


def test_what_rounding_costs_is_trained_back_and_repeats() -> None:
    def wrong(expression: str) -> tuple[int, torch.Tensor]:
        model, inputs, targets = with_an_outlier()
        answers = run(trained(expression, model, inputs, targets).model if expression else model, inputs)
        return int((answers.argmax(1) != targets).sum()), answers

    found = {each: wrong(each) for each in ("", "int8-dynamic", "int8-dynamic(finetune='aware:train')")}
    original, plain, aware = (count for count, _ in found.values())
    assert (original, plain >= 40, aware <= plain // 4) == (0, True, True), (original, plain, aware)
    torch.manual_seed(99)
    assert torch.equal(
        wrong("int8-dynamic(finetune='aware:train')")[1], found["int8-dynamic(finetune='aware:train')"][1]
    )


def test_what_keep_names_is_frozen_and_the_training_counts_for_nothing() -> None:
    """All weights are trained; changed are those that are quantized, though a step before it has changed others."""
    model, inputs = make("mlp")
    before = model[0].weight.detach().clone()
    optimization = trained("int8-dynamic(finetune='aware:one_step', keep='0')", model, inputs)
    assert torch.equal(optimization.model[0].weight, before)
    assert optimization.model[0].weight.requires_grad
    assert sys.modules["aware"].seen == [{"2.weight", "2.bias", "4.weight", "4.bias"}]
    plain = apply("int8-dynamic(keep='0')", *make("mlp"))
    assert optimization.coverage.layers == plain.coverage.layers
    assert not torch.equal(run(optimization.model, inputs), run(plain.model, inputs))
    assert "was trained further by aware:one_step" in " ".join(optimization.notes)
    chain = "prune-unstructured(ratio=0.5, keep='2,4') + int8-dynamic(keep='0,4'{})"
    in_chain = trained(chain.format(", finetune='aware:one_step'"), *make("mlp"))
    assert in_chain.coverage.layers == apply(chain.format(""), *make("mlp")).coverage.layers
    assert [layer.changed_bytes for layer in in_chain.coverage.layers] == [4 * 64 * 128, 4 * 128 * 128, 0]
    with pytest.raises(RecipeError, match="int8-dynamic cannot keep 0"):
        trained("int8-dynamic(finetune='aware:writes_to_kept', keep='0')", *make("mlp"))


def test_what_is_dropped_at_random_inside_a_layer_is_dropped_in_both_forms() -> None:
    """Where the quantized form draws as the layer does; torch's packed LSTM does not, and is trained in float."""
    torch.manual_seed(0)
    layer, inputs = nn.LSTM(16, 32, 2, dropout=0.5, batch_first=True), torch.randn(8, 5, 16)
    weight_only, dynamic = parse("int8-weight-only").steps[0], parse("int8-dynamic").steps[0]
    assert isinstance(weight_only, TrainsQuantized)
    assert isinstance(dynamic, TrainsQuantized)
    _, convert = weight_only.to_quantize(layer, Context(inputs, None, 0))
    _, packed = dynamic.to_quantize(layer, Context(inputs, None, 0))
    assert list(answer_as_quantized([layer], packed)) == [layer]

    def called() -> tuple[torch.Tensor, torch.Tensor]:
        """The answer, and a gradient, which tells what was dropped."""
        torch.manual_seed(1)
        answer = layer(inputs)[0]
        (gradient,) = torch.autograd.grad(answer.sum(), [layer.get_parameter("weight_hh_l0")])
        return answer.detach(), gradient

    plain, gradient = called()
    assert answer_as_quantized([layer], convert) == {}
    aware, same_gradient = called()
    assert 0 < float((plain - aware).abs().max()) < 0.02
    assert torch.equal(gradient, same_gradient)


def test_recipes_that_cannot_train_say_which_can() -> None:
    for recipe in ("int8-static", "torchao-float8-dynamic", "onnxruntime-int8-dynamic", "bf16"):
        with pytest.raises(RecipeError, match="has no parameter 'finetune', which int8-dynamic, int8-weight-only, "):
            parse(f"{recipe}(finetune='aware:train')")
    with pytest.raises(RecipeError, match=r"int8-dynamic\(finetune=aware:train\) needs calibration data with targets"):
        apply("int8-dynamic(finetune='aware:train')", *make("mlp"))
