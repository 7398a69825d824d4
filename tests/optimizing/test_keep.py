"""`keep=` of every recipe that changes layers: what it names stays, by one rule, and nothing else does."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.quantization.low_precision import LowPrecisionRecipe
from pytest_modelopt.optimizing.recipe import Applied, Context, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.registry import BUILT_IN
from tests.optimizing.keep_oracle import changed, made, require_kept
from tests.optimizing.recipe_models import apply, make, outputs, run, saved_and_loaded

EVERYWHERE = [
    ("int8-dynamic", "mlp", "2"),
    ("int8-dynamic", "lstm", "recurrent"),
    ("int8-weight-only", "encoder", "encoder.layers.0.self_attn"),
    ("int8-weight-only", "cnn", "block1.*,head"),
    ("int8-static", "cnn", "block1,depthwise"),
    ("low-rank", "mlp", "0"),
    ("prune-unstructured", "cnn", "stem,block2"),
    ("fold-batchnorm", "cnn", "block1"),
    ("torchao-int8-dynamic", "mlp", "2"),
    ("torchao-int8-weight-only", "lstm", "embed"),
]
"""Recipe, model, and what it keeps."""


@pytest.mark.parametrize(("recipe", "kind", "keep"), EVERYWHERE)
def test_what_keep_names_stays_and_the_rest_changes_as_without_it(recipe: str, kind: str, keep: str) -> None:
    require_kept(recipe, kind, keep, changed(apply(recipe, *made(kind))))


def test_a_batch_norm_stays_behind_a_layer_that_is_kept() -> None:
    whole = changed(apply("fold-batchnorm", *made("cnn")))
    optimization = apply("fold-batchnorm(keep='block1.conv1,block2.norm2')", *made("cnn"))
    gone = {"block1.conv1", "block1.norm1", "block2.conv2", "block2.norm2"}
    assert gone < whole
    assert changed(optimization) == whole - gone
    assert "1 BatchNorm2d (256 B) left as they are: keep names the layer before them" in " ".join(optimization.notes)
    fused = changed(apply("int8-static", *made("cnn")))
    assert changed(apply("int8-static(keep='block1.conv1')", *made("cnn"))) == fused - {"block1.conv1", "block1.norm1"}


@pytest.mark.parametrize("recipe", ["bf16", "fp16"])
def test_a_layer_stays_in_float32_among_16_bits(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LowPrecisionRecipe, "unfit", classmethod(lambda cls, device: ""))  # emulated, for its numbers
    model, inputs = make("encoder")
    original = run(model, inputs)
    optimization = apply(f"{recipe}(keep='encoder.layers.0.linear1,head')", model, inputs)
    wide = {"encoder.layers.0.linear1", "head"}
    assert changed(optimization) == {layer.name for layer in optimization.coverage.layers} - wide
    dtypes = {name: p.dtype for name, p in optimization.model.named_parameters()}
    assert {name.removeprefix("model.").rpartition(".")[0] for name, d in dtypes.items() if d is torch.float32} == wide
    answer = run(saved_and_loaded(optimization.model), inputs)
    assert answer.dtype is torch.float32
    assert torch.allclose(answer, original, atol=0.05)
    chained = apply(f"{recipe} + torchao-int8-weight-only(keep='head')", *make("encoder"))
    narrow = torch.bfloat16 if recipe == "bf16" else torch.float16
    assert {parameter.dtype for parameter in chained.model.model.head.parameters()} == {narrow}


def test_every_recipe_that_changes_layers_has_keep_and_no_other() -> None:
    of_layers = {recipe.recipe_name for recipe in BUILT_IN if "keep" in recipe.model_fields}
    assert {recipe.recipe_name for recipe in BUILT_IN} - of_layers == {
        *("channels-last", "compile", "onnxruntime", "openvino", "litert")
    }
    assert all(list(recipe.model_fields)[-1] == "keep" for recipe in BUILT_IN if recipe.recipe_name in of_layers)
    with pytest.raises(RecipeError, match="onnxruntime has no parameter 'keep'; onnxruntime takes no parameters"):
        parse("onnxruntime(keep=head)")


def test_a_layer_that_shares_a_weight_is_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rule for all recipes, too: int8-weight-only has one of its own, bf16 has none."""
    monkeypatch.setattr(LowPrecisionRecipe, "unfit", classmethod(lambda cls, device: ""))
    assert changed(apply("int8-weight-only", *make("tied"))) == {"embed", "hidden"}
    assert changed(apply("int8-weight-only(keep=head)", *make("tied"))) == {"hidden"}
    assert changed(apply("bf16(keep=head)", *make("tied"))) == changed(apply("bf16", *make("tied"))) - {"embed", "head"}


def test_part_of_an_attention_keeps_all_of_it() -> None:
    optimization = apply("int8-weight-only(keep='encoder.layers.0.self_attn.out_proj')", *make("encoder"))
    kept = {layer.name for layer in optimization.coverage.layers if not layer.changed_bytes}
    assert {name for name in kept if "self_attn" in name} == {
        "encoder.layers.0.self_attn",
        "encoder.layers.0.self_attn.out_proj",
    }


@pytest.mark.parametrize("recipe", ["int8-dynamic", "low-rank", "bf16"])
def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LowPrecisionRecipe, "unfit", classmethod(lambda cls, device: ""))
    with pytest.raises(RecipeError, match=f"{recipe}: keep names 'hed', .* the nearest name is 'head'"):
        apply(f"{recipe}(keep=hed)", *make("cnn"))


@pytest.mark.parametrize("recipe", ["int8-dynamic", "prune-unstructured", "torchao-int8-dynamic"])
def test_a_keep_that_leaves_nothing_changes_nothing(recipe: str) -> None:
    with pytest.raises(RecipeDidNothing, match=f"{recipe} changed nothing.*3 Linear .* keep names them"):
        apply(f"{recipe}(keep='*')", *make("mlp"))


def test_names_after_an_earlier_step_are_those_of_the_author() -> None:
    optimization = apply("low-rank + int8-dynamic(keep='0')", *make("mlp"))
    assert type(optimization.model[0]) is nn.Sequential
    assert {type(part) for part in optimization.model[0]} == {nn.Linear}
    assert not isinstance(optimization.model[2], nn.Linear)


def test_keep_is_spelled_last_and_its_answers_are_nearer_where_a_layer_must_stay() -> None:
    """The kept layer multiplies numbers that are 10,000 times as large in one place as in the others."""
    text = "low-rank(keep='0',energy=0.9)+int8-dynamic(keep='0')"
    assert parse(text).text == "low-rank(energy=0.9, keep='0')+int8-dynamic(keep='0')"
    with pytest.raises(RecipeError, match="keep of int8-dynamic: nothing stands before or after a comma"):
        parse("int8-dynamic(keep='a,,b')")
    errors = {}
    for recipe in ("int8-dynamic", "int8-dynamic(keep='0')"):
        model, inputs = make("mlp")
        inputs = inputs.clone()
        inputs[:, 0] *= 1e4
        model[0].weight.data[:, 0] *= 1e-4
        original = outputs(run(model, inputs))[0]
        errors[recipe] = float((outputs(run(apply(recipe, model, inputs).model, inputs))[0] - original).abs().max())
    assert errors["int8-dynamic(keep='0')"] < errors["int8-dynamic"] / 5


class Disobedient(LayerRecipe):
    """A recipe of a project that does not look at what it is told to keep."""

    recipe_name: ClassVar[str] = "disobedient"
    summary: ClassVar[str] = "halves all weights"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        for parameter in model.parameters():
            parameter.data = parameter.data / 2
        return Applied(model)


def test_a_recipe_that_changes_what_it_is_told_to_keep_is_an_error() -> None:
    model, inputs = make("mlp")
    with pytest.raises(RecipeError, match=r"disobedient cannot keep 2: .*leave them out of `keep`"):
        optimize(model, [Disobedient(keep="2")], Context(inputs, None, seed=0))
    done: Any = optimize(make("mlp")[0], [Disobedient()], Context(inputs, None, seed=0))
    assert changed(done) == {"0", "2", "4"}
