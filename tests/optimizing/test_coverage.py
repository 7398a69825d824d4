"""Coverage: bytes that really changed, against counts made by hand from the architectures' formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from pytest_modelopt.measuring.worker.memory.tensor_meter import call_peak_bytes
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import MLP, Encoder, apply, make

FLOAT32 = 4


def changed_bytes(before: nn.Module, after: nn.Module) -> int:
    return sum(layer.changed_bytes for layer in compare(snapshot(before), after))


def test_int8_dynamic_of_an_mlp_changes_the_weights_and_keeps_the_biases() -> None:
    model, inputs = make("mlp")
    coverage = apply("int8-dynamic", model, inputs).coverage
    weights = 64 * 128 + 128 * 128 + 128 * 10
    biases = 128 + 128 + 10
    assert coverage.changed_bytes == weights * FLOAT32
    assert coverage.weight_bytes == (weights + biases) * FLOAT32
    assert [(layer.name, layer.type) for layer in coverage.layers] == [
        ("0", "Linear"),
        ("2", "Linear"),
        ("4", "Linear"),
    ]


def test_int8_dynamic_of_a_transformer_leaves_attention_unchanged() -> None:
    model, inputs = make("encoder")
    coverage = apply("int8-dynamic", model, inputs).coverage
    width, feed_forward = 64, 128
    attention = 3 * width * width + 3 * width + width * width + width
    feed_forward_weights = 2 * width * feed_forward
    norms = 2 * 2 * width
    layer = attention + feed_forward_weights + feed_forward + width + norms
    embed, head = 16 * width, width * 5
    assert coverage.weight_bytes == (2 * layer + embed + width + head + 5) * FLOAT32
    assert coverage.changed_bytes == (2 * feed_forward_weights + embed + head) * FLOAT32
    untouched = {layer.type for layer in coverage.layers if not layer.changed_bytes}
    assert untouched == {"MultiheadAttention", "NonDynamicallyQuantizableLinear", "LayerNorm"}


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_int8_dynamic_of_a_recurrent_model_keeps_biases_and_embedding(kind: str, gates: int) -> None:
    model, inputs = make(kind)
    coverage = apply("int8-dynamic", model, inputs).coverage
    assert coverage.changed_bytes == (gates * 64 * (32 + 64) + 64 * 96 + 96 * 5) * FLOAT32
    assert coverage.weight_bytes - coverage.changed_bytes == (50 * 32 + 2 * gates * 64 + 96 + 5) * FLOAT32


def test_int8_dynamic_of_a_cnn_changes_its_head_only() -> None:
    model, inputs = make("cnn")
    coverage = apply("int8-dynamic", model, inputs).coverage
    assert coverage.changed_bytes == 64 * 10 * FLOAT32


def test_int8_static_of_a_transformer_leaves_the_encoder_unchanged() -> None:
    model, inputs = make("encoder")
    coverage = apply("int8-static", model, inputs).coverage
    assert coverage.changed_bytes == (16 * 64 + 64 * 5) * FLOAT32


def test_low_rank_moves_the_bias_without_changing_it() -> None:
    coverage = apply("low-rank", nn.Sequential(nn.Linear(64, 128)), torch.randn(2, 64)).coverage
    assert coverage.changed_bytes == 64 * 128 * FLOAT32


def test_steps_are_relative_to_the_step_before_and_layers_to_the_original() -> None:
    model, inputs = make("mlp")
    coverage = apply("low-rank + int8-dynamic", model, inputs).coverage
    rank_first, rank_second = 64 * 128 // 2 // (64 + 128), 128 * 128 // 2 // 256
    factors = rank_first * (64 + 128) + rank_second * 256
    first, second = coverage.steps
    assert (first.recipe, second.recipe) == ("low-rank(ratio=0.5)", "int8-dynamic")
    assert first.changed_bytes == (64 * 128 + 128 * 128) * FLOAT32
    assert second.weight_bytes == (factors + 128 * 10 + 128 + 128 + 10) * FLOAT32
    assert second.changed_bytes == (factors + 128 * 10) * FLOAT32
    assert coverage.changed_bytes == (64 * 128 + 128 * 128 + 128 * 10) * FLOAT32


def test_a_model_equals_itself_bit_by_bit_and_nan_equals_nan() -> None:
    model: Any = MLP()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    assert changed_bytes(model, model) == 0


def test_the_sign_of_a_zero_is_a_change() -> None:
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    before = snapshot(model)
    with torch.no_grad():
        model.weight[0, 0] = -0.0
    assert [layer.changed_bytes for layer in compare(before, model)] == [16]


def test_a_cast_is_a_change() -> None:
    model = MLP()
    before = snapshot(model)
    assert sum(layer.changed_bytes for layer in compare(before, model.half())) == before.weight_bytes


def test_shared_weights_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 8)
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

    assert snapshot(Tied()).layers() == (("embed", "Embedding", 10 * 8 * FLOAT32),)


def test_reparametrizations_keep_the_author_names_and_change_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = snapshot(model)
    prune.identity(model[0], "weight")  # type: ignore[no-untyped-call]
    parametrizations.orthogonal(model[1], orthogonal_map="cayley")
    after = snapshot(model)
    assert [layer[:2] for layer in after.layers()] == [("0", "Linear"), ("1", "Linear")]
    assert compare(before, model)[0].changed_bytes == 0


def test_fx_and_compile_wrappers_change_nothing() -> None:
    class Compiled(nn.Module):
        """Holds the model as what torch.compile returns does."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self._orig_mod = model

    model = MLP()
    assert changed_bytes(model, torch.fx.symbolic_trace(model)) == 0
    assert changed_bytes(model, Compiled(model)) == 0


def compiled_whole(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_inside(model: nn.Module) -> nn.Module:
    model._modules["2"] = torch.compile(model.get_submodule("2"), backend="eager")  # type: ignore[assignment]
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize("compiled", [compiled_whole, compiled_inside, compiled_in_place])
@pytest.mark.parametrize("recipe", ["int8-dynamic", "int8-static", "prune-unstructured", "fp16", "onnxruntime"])
def test_a_compiled_original_reads_as_the_same_model_without_compile(
    recipe: str, compiled: Callable[[nn.Module], nn.Module]
) -> None:
    inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    plain = apply(recipe, make("mlp")[0], inputs).coverage
    assert sum(layer.multiply_adds for layer in plain.layers) == 4 * (64 * 128 + 128 * 128 + 128 * 10)
    assert apply(recipe, compiled(make("mlp")[0]), inputs).coverage.layers == plain.layers


def test_batch_norms_of_a_compiled_original_are_folded() -> None:
    model, inputs = make("cnn")
    plain = apply("fold-batchnorm", model, inputs)
    optimization = apply("fold-batchnorm", compiled_whole(make("cnn")[0]), inputs)
    assert optimization.coverage.layers == plain.coverage.layers
    assert optimization.notes == (
        "modules that torch.compile had wrapped run uncompiled in the variant: torch.fx traced it",
    )


@pytest.mark.parametrize("recipe", ["int8-static", "fold-batchnorm"])
def test_functions_that_torch_compile_has_made_are_refused_with_the_way_out(recipe: str) -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
            self.run: Any = torch.compile(self.layers.forward, backend="eager")

        def forward(self, x: torch.Tensor) -> Any:
            return self.run(x)

    line = r"\(test_coverage.py:\d+: `return self.run\(x\)`\)"
    told = rf"Calls is not {line}: it calls a function that torch\.compile has made; leave"
    with pytest.raises(RecipeError, match=told):
        apply(recipe, Calls().eval(), torch.randn(4, 8))


def test_a_module_that_is_never_called_is_unchanged() -> None:
    class Auxiliary(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("auxiliary", nn.Linear(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in list(self)[:5]:
                x = layer(x)
            return x

    optimization = apply("int8-static", Auxiliary(), torch.randn(2, 64))
    layer = next(layer for layer in optimization.coverage.layers if layer.name == "auxiliary")
    assert (layer.weight_bytes, layer.changed_bytes) == ((3 * 3 + 3) * FLOAT32, 0)
    assert any("never calls them" in note for note in optimization.notes)


def test_buffers_are_not_weights() -> None:
    assert {layer[1] for layer in snapshot(nn.Sequential(nn.BatchNorm2d(4))).layers()} == {"BatchNorm2d"}
    assert snapshot(nn.BatchNorm2d(4)).weight_bytes == 2 * 4 * FLOAT32


def test_the_root_module_can_own_weights() -> None:
    assert snapshot(nn.Linear(2, 3)).layers() == (("", "Linear", 9 * FLOAT32),)
    assert snapshot(Encoder()).layers()[0] == ("embed", "Linear", (16 * 64 + 64) * FLOAT32)


@pytest.mark.parametrize(("expression", "share"), [("int8-weight-only", 1.0), ("bf16", 1.0)])
def test_the_work_of_a_tied_layer_is_that_of_the_weight(
    expression: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_modelopt.optimizing.quantization.bf16.Bf16.unfit", classmethod(lambda cls, device: ""))
    coverage = apply(expression, *make("tied")).coverage
    tokens, width, words = 3 * 9, 64, 50
    assert coverage.multiply_adds == tokens * (width * width + width * words)
    assert coverage.multiply_adds_share == share
    head = next(layer for layer in coverage.layers if layer.name == "head")
    assert (head.weight_bytes, head.multiply_adds, head.changed_multiply_adds) == (0, tokens * width * words, 86400)


def test_a_module_at_two_places_does_its_work_under_one_of_its_names() -> None:
    coverage = apply("prune-unstructured", *make("shared")).coverage
    assert coverage.multiply_adds == 4 * (64 * 128 + 2 * 128 * 128 + 128 * 10)
    assert coverage.multiply_adds_share == 1


def test_a_snapshot_keeps_no_numbers() -> None:
    """A model of half the machine's memory could not be compared with a copy of itself."""
    model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256))
    assert call_peak_bytes(lambda: snapshot(model)) == 0
