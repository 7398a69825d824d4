"""Each recipe on each kind of model: close enough, saved and loaded bit by bit, and honest about what it left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import KINDS, apply, make, relative_error, run, saved_and_loaded

NOTHING_TO_CHANGE = {("low-rank", "cnn")}
EXPRESSIONS = (
    "int8-dynamic",
    "int8-static",
    "prune-unstructured",
    "prune-structured",
    "low-rank",
    "prune-structured + int8-dynamic",
    "prune-structured + int8-static",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_variant_runs_in_eval_mode_and_reloads_bit_by_bit(expression: str, kind: str) -> None:
    model, inputs = make(kind)
    original = run(model, inputs)
    if (expression, kind) in NOTHING_TO_CHANGE:
        with pytest.raises(RecipeDidNothing):
            apply(expression, model, inputs)
        return
    optimization = apply(expression, model, inputs)
    answers = run(optimization.model, inputs)
    assert not optimization.model.training
    assert answers.shape == original.shape
    assert 0 < optimization.coverage.share <= 1
    assert torch.equal(run(saved_and_loaded(optimization.model), inputs), answers)
    if expression.startswith("int8"):
        assert (answers - original).abs().max() < 0.06 * original.abs().max()


def test_optimizing_twice_gives_the_same_bits() -> None:
    answers = []
    for _ in range(2):
        model, inputs = make("cnn")
        answers.append(run(apply("prune-structured + int8-static", model, inputs).model, inputs))
    assert torch.equal(*answers)


class TestInt8Dynamic:
    def test_a_class_derived_from_one_that_it_packs_is_no_type_without_a_kernel(self) -> None:
        class Mine(nn.GRU):
            pass

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn = Mine(8, 8, batch_first=True)
                self.embedding = nn.Embedding(4, 8)
                self.head = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> Any:
                return self.head(self.rnn(self.embedding(x))[0])

        notes = apply("int8-dynamic", Model(), torch.zeros(2, 3, dtype=torch.long)).notes
        assert (
            "1 Mine (1.69 KiB) left in floating point: torch packs exact nn.GRU only, no subclasses; use nn.GRU itself "
            "where the forward is the same"
        ) in notes
        assert "1 Embedding (128 B) left in floating point: int8-dynamic has no kernel for them" in notes

    def test_says_what_attention_keeps_in_bytes(self) -> None:
        notes = " | ".join(apply("int8-dynamic", *make("encoder")).notes)
        assert "2 MultiheadAttention (130 KiB) left in floating point" in notes
        assert f"together {2 * 4 * 64 * 64 * 4 // 1024} KiB" in notes
        assert "2 TransformerEncoderLayer through torch's fused eval path" in notes

    def test_turns_the_fused_path_off_in_the_variant_itself(self) -> None:
        optimization = apply("int8-dynamic", *make("masked encoder"))
        encoder = saved_and_loaded(optimization.model).get_submodule("encoder")
        assert encoder.use_nested_tensor is False
        assert all(layer.activation_relu_or_gelu == 0 for layer in encoder.layers)
        assert torch.backends.mha.get_fastpath_enabled()

    def test_a_decoder_runs_too(self) -> None:
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 2, 64, batch_first=True), 1)
        inputs = (torch.randn(2, 5, 32), torch.randn(2, 5, 32))
        assert apply("int8-dynamic", decoder, inputs).coverage.changed_bytes == 2 * 32 * 64 * 4

    def test_cells_are_packed(self) -> None:
        class Cells(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm, self.gru, self.rnn = nn.LSTMCell(8, 16), nn.GRUCell(16, 16), nn.RNNCell(16, 16)

            def forward(self, x: torch.Tensor) -> Any:
                return self.rnn(self.gru(self.lstm(x)[0]))

        coverage = apply("int8-dynamic", Cells(), torch.randn(2, 8)).coverage
        assert coverage.changed_bytes == (4 * 16 * 24 + 3 * 16 * 32 + 16 * 32) * 4

    def test_a_model_that_is_a_linear_is_packed(self) -> None:
        assert apply("int8-dynamic", nn.Linear(8, 8), torch.randn(2, 8)).coverage.changed_bytes == 8 * 8 * 4

    def test_a_shared_module_stays_shared(self) -> None:
        linear = nn.Linear(64, 64)
        model = apply("int8-dynamic", nn.Sequential(linear, nn.ReLU(), linear), torch.randn(2, 64)).model
        assert model[0] is model[2]

    def test_tied_and_subclassed_layers_are_left_and_named(self) -> None:
        class Mine(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x).abs()

        model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), Mine(16, 16), nn.Linear(16, 20, bias=False))
        model[3].weight = model[0].weight
        optimization = apply("int8-dynamic", model, torch.randint(0, 20, (2, 3)))
        assert model[3].weight is model[0].weight
        notes = " | ".join(optimization.notes)
        assert "1 Linear (1.25 KiB) left as they are: another module shares their weight" in notes
        assert "the weight that `0` and `3` share (1.25 KiB) stays as it is" in notes
        assert "1 Mine (1.06 KiB) left in floating point: torch packs exact nn.Linear only" in notes

    def test_a_forward_that_reads_a_packed_weight_is_told_so(self) -> None:
        class Reads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x @ self.linear.weight.t()

        with pytest.raises(RecipeDidNothing, match=r"does not run with them replaced .* call the layer in forward"):
            apply("int8-dynamic", Reads(), torch.randn(2, 8))

    def test_half_precision_is_explained(self) -> None:
        model = nn.Sequential(nn.Linear(8, 8)).half()
        with pytest.raises(RecipeDidNothing, match="packing needs float32 weights, and they are float16"):
            apply("int8-dynamic", model, torch.randn(2, 8).half())

    def test_an_unset_engine_is_chosen_and_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(torch.backends.quantized), "engine", "none")
        notes = apply("int8-dynamic", nn.Linear(8, 8), torch.randn(2, 8)).notes
        assert any("no quantized engine set" in note for note in notes)

    def test_a_torch_without_torch_ao_is_told_by_name(self) -> None:
        with pytest.raises(RecipeError, match=r"int8-dynamic needs torch\.ao\.gone, which torch 2"):
            torch_ao.load("torch.ao.gone", "int8-dynamic")


class TestInt8Static:
    def test_needs_calibration_data(self) -> None:
        model, inputs = make("mlp")
        with pytest.raises(RecipeError, match=r"add `calibration: package\.module:function`"):
            optimize(model, parse("int8-static").steps, Context(inputs, None, seed=0))

    def test_an_empty_calibration_is_an_error_and_a_short_one_is_noted(self) -> None:
        with pytest.raises(RecipeError, match="the calibration gave no batch"):
            apply("int8-static", *make("mlp"), batches=0)
        assert "calibrated with 2 of 4 batches" in " ".join(apply("int8-static", *make("mlp"), batches=2).notes)

    def test_quantizes_convolutions(self) -> None:
        coverage = apply("int8-static", *make("cnn")).coverage
        assert all(layer.changed_bytes for layer in coverage.layers if layer.type == "Conv2d")

    @pytest.mark.parametrize(
        "flatten",
        [
            lambda x: x.view(x.size(0), -1),
            lambda x: x.view((-1, 16 * 6 * 6)),
            lambda x: x.view(size=(x.size(0), -1)),
            lambda x: x.view_as(x).view(x.size(0), 4, -1).view(x.size(0), -1),
        ],
        ids=["view", "view of a tuple", "view by keyword", "view_as"],
    )
    def test_a_view_of_a_convolution_needs_no_other_form_of_the_model(
        self, flatten: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.MaxPool2d(2))
                self.head = nn.Linear(16 * 6 * 6, 10)

            def forward(self, x: torch.Tensor) -> Any:
                return self.head(flatten(self.features(x)))

        torch.manual_seed(0)
        model, x = Classifier().eval(), torch.randn(4, 3, 16, 16)
        original = run(model, x)
        variant = apply("int8-static", model, x).model
        assert relative_error(run(variant, x), original) < 0.1
        assert torch.equal(run(saved_and_loaded(variant), x), run(variant, x))

    def test_a_layer_whose_weight_is_read_is_left_and_the_others_are_quantized(self) -> None:
        class Reads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.asked, self.scaled, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

            def forward(self, x: torch.Tensor) -> Any:
                x = self.asked(x.to(self.asked.weight.dtype)).relu()
                return self.last((self.scaled(x) + self.scaled.bias).relu())

        model, x = Reads().eval(), torch.randn(32, 64)
        original = run(model, x)
        optimization = apply("int8-static", model, x)
        assert relative_error(run(optimization.model, x), original) < 0.05
        assert [layer.name for layer in optimization.coverage.layers if layer.changed_bytes] == ["last"]
        assert any(
            "2 Linear (32.5 KiB) left as they are: forward reads their weight" in note for note in optimization.notes
        )

    def test_says_which_line_cannot_be_traced(self) -> None:
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor) -> Any:
                if x.sum() > 0:
                    return self.linear(x)
                return x

        with pytest.raises(
            RecipeError, match=r"test_recipes.py:\d+: `if x.sum\(\) > 0:`.*int8-dynamic needs no tracing"
        ):
            apply("int8-static", Branches(), torch.ones(2, 8))

    def test_arguments_that_are_not_given_keep_their_defaults(self) -> None:
        class Optional(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: torch.Tensor, scale: float = 2.0, mask: torch.Tensor | None = None) -> torch.Tensor:
                x = self.linear(x) * scale
                return x if mask is None else x * mask

        model, x = Optional().eval(), torch.randn(4, 8)
        original = run(model, x)
        variant = saved_and_loaded(apply("int8-static", model, x).model)
        assert (run(variant, x) - original).abs().max() < 0.05 * original.abs().max()

    def test_recurrent_modules_are_left_and_named_in_bytes(self) -> None:
        notes = " ".join(apply("int8-static", *make("lstm")).notes)
        assert f"1 LSTM ({(4 * 64 * 96 + 8 * 64) * 4 // 1024} KiB) left in floating point" in notes

    def test_half_precision_is_refused_in_words(self) -> None:
        with pytest.raises(RecipeError, match="the model holds float16"):
            apply("int8-static", nn.Linear(8, 8).half(), torch.randn(2, 8).half())


class TestNothing:
    def test_names_what_the_model_holds_and_what_would_fit(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        with pytest.raises(RecipeDidNothing) as error:
            apply("int8-dynamic", model, torch.randn(1, 3, 8, 8))
        assert str(error.value) == (
            "int8-dynamic changed nothing: the model holds 1 Conv2d (896 B), 1 BatchNorm2d (64 B); "
            "int8-dynamic changes Linear, LSTM, GRU, LSTMCell, GRUCell, RNNCell and EmbeddingBag only; Conv2d "
            "is changed by int8-static, int8-weight-only and bf16"
        )

    def test_a_derived_class_gets_the_advice_of_its_base(self) -> None:
        class Padded(nn.Conv2d):
            pass

        with pytest.raises(
            RecipeDidNothing,
            match=r"the model holds 1 Padded .*; Padded is derived from Conv2d, for which recipes look: Conv2d is",
        ):
            apply("int8-dynamic", nn.Sequential(Padded(3, 4, 3)), torch.randn(2, 3, 8, 8))

    @pytest.mark.parametrize("expression", EXPRESSIONS[:5])
    def test_a_model_without_weights_says_so(self, expression: str) -> None:
        with pytest.raises(RecipeDidNothing, match=f"{expression} changed nothing: the model holds no weights"):
            apply(expression, nn.ReLU(), torch.randn(2, 2))

    def test_a_second_step_that_does_nothing_is_an_error_too(self) -> None:
        with pytest.raises(RecipeDidNothing, match="low-rank changed nothing"):
            apply("prune-structured + low-rank", *make("cnn"))

    def test_inputs_that_do_not_fit_are_not_blamed_on_the_recipe(self) -> None:
        with pytest.raises(RecipeError, match="does not run on its example inputs, before any recipe: RuntimeError"):
            apply("int8-dynamic", nn.Linear(8, 8), torch.randn(2, 7))
