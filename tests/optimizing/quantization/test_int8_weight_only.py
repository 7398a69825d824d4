"""int8-weight-only: exact arithmetic, every kind of model, what is shared stays shared, and what a call costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from pytest_modelopt.measuring.worker.memory.tensor_meter import call_peak_bytes, weights_bytes
from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.quantization.int8_weight_only_module import BLOCK_WEIGHTS, Int8Rows
from tests.optimizing import torchao_oracles
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    Encoder,
    Recurrent,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)

INT8, SCALE, FLOAT32 = 1, 4, 4


def quantized_by_hand(row: list[float]) -> tuple[list[int], float]:
    """Symmetric int8 of one row, in Python's own double precision; round() rounds halves to even."""
    scale = max(abs(weight) for weight in row) / 127 or 1.0
    return [round(weight / scale) for weight in row], scale


class TestArithmetic:
    def test_values_and_scales_equal_those_computed_by_hand(self) -> None:
        # scales that are powers of two, so that float32 and Python agree on every half
        rows = [[127.0, -127.0, 0.5, 1.5, -2.5], [31.75, 0.125, -0.375, 0.0, 10.0], [0.0] * 5]
        stored = Int8Rows(torch.tensor(rows))
        expected = [quantized_by_hand(row) for row in rows]
        assert stored.values.tolist() == [values for values, _ in expected]
        assert stored.scales.tolist() == [scale for _, scale in expected]
        assert stored.values.dtype is torch.int8
        assert stored.values[0].tolist() == [127, -127, 0, 2, -2]

    @pytest.mark.parametrize("shape", [(7, 33), (6, 4, 3, 3), (5, 1)])
    def test_every_weight_is_off_by_half_of_its_rows_scale_at_most(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        weight = torch.randn(shape) * torch.logspace(-6, 6, shape[0]).view(-1, *[1] * (len(shape) - 1))
        stored = Int8Rows(weight)
        half = weight.flatten(1).abs().amax(1) / 127 / 2
        error = (stored.dequantized() - weight).flatten(1).abs().amax(1)
        assert bool((error <= half * (1 + 1e-5)).all())

    def test_agrees_with_torchao_within_half_a_step_of_each(self) -> None:
        torch.manual_seed(0)
        linear = nn.Linear(96, 40)
        ours = Int8Rows(linear.weight).dequantized()
        theirs, their_scales = torchao_oracles.int8_weight_only(linear)
        our_scales = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        assert bool(((ours - theirs).abs() <= (our_scales + their_scales) / 2 * 1.0001).all())

    @pytest.mark.parametrize("outputs", [1, 32, 33, 513, 8 * BLOCK_WEIGHTS // 512 + 1])
    @pytest.mark.parametrize("shape", [(512,), (2, 512), (2, 3, 512)])
    def test_a_linear_in_blocks_equals_one_with_the_dequantized_weight(
        self, outputs: int, shape: tuple[int, ...]
    ) -> None:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(512, outputs)).eval()
        bias = model[0].bias
        x = torch.randn(shape)
        variant = apply("int8-weight-only", model, x).model
        weight = variant[0].weight.double()
        expected = x.double() @ weight.T + bias.double()
        # the bound of a sum of 512 products in float32 (Higham, Accuracy and Stability, 3.1), and as much again
        bound = 2 * 512 * 2**-24 * (x.double().abs() @ weight.abs().T + bias.double().abs())
        assert bool(((run(variant, x).double() - expected).abs() <= bound).all())

    def test_low_precision_weights_keep_their_dtype(self) -> None:
        model = nn.Sequential(nn.Embedding(20, 64), nn.Linear(64, 32), nn.Conv1d(5, 8, 3)).bfloat16().eval()
        inputs = torch.randint(0, 20, (2, 5))
        original = run(model, inputs)
        answer = run(apply("int8-weight-only", model, inputs).model, inputs)
        assert answer.dtype is torch.bfloat16
        assert relative_error(answer, original) < 0.03


class TestKinds:
    @pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
    def test_close_reloadable_and_small(self, kind: str) -> None:
        model, inputs = make(kind)
        original, before = run(model, inputs), weights_bytes(model)
        optimization = apply("int8-weight-only", model, inputs)
        answers = run(optimization.model, inputs)
        # 8 bits: each weight is off by 1/254 of its row's largest at most, and errors add up over a few layers
        assert relative_error(answers, original) < 0.02
        again = outputs(run(saved_and_loaded(optimization.model), inputs))
        assert all(torch.equal(one, other) for one, other in zip(again, outputs(answers), strict=True))
        if kind != "subclass":
            assert optimization.coverage.share > 0.95
            assert weights_bytes(optimization.model) < 0.3 * before

    def test_bytes_are_one_per_weight_and_four_per_row(self) -> None:
        variant = apply("int8-weight-only", *make("cnn")).model
        weights = 16 * 27 + 32 * 16 * 9 + 32 * 32 * 9 + 32 * 16 + 32 * 9 + 64 * 32 * 9 + 64 * 64 * 9 + 64 * 32 + 10 * 64
        rows = 16 + 3 * 32 + 32 + 3 * 64 + 10
        biases = 16 + 32 + 32 + 64 + 10
        norms = 2 * (32 + 64) * 4  # weight, bias, mean and variance
        counters = 4 * 8  # num_batches_tracked
        assert weights_bytes(variant) == weights * INT8 + rows * SCALE + (biases + norms) * FLOAT32 + counters

    def test_a_variant_answers_the_same_in_a_fresh_process(self, tmp_path: Path) -> None:
        model, inputs = make("masked encoder")
        variant = apply("int8-weight-only", model, inputs).model
        torch.save((variant, inputs, run(variant, inputs)), tmp_path / "variant.pt", pickle_module=cloudpickle)
        loads = (
            "import torch; torch.set_num_threads(1); "
            "model, inputs, answer = torch.load('variant.pt', weights_only=False); "
            "torch.set_grad_enabled(False); assert torch.equal(model(*inputs), answer)"
        )
        setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r}); "
        done = subprocess.run(
            [sys.executable, "-c", setup + loads], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
    @pytest.mark.parametrize("options", [{"num_layers": 2, "bidirectional": True}, {"proj_size": 16}, {"bias": False}])
    def test_recurrent_layers_of_every_form(self, options: dict[str, int]) -> None:
        torch.manual_seed(0)
        model, x = nn.LSTM(32, 64, **options).eval(), torch.randn(5, 2, 32)
        original = run(model, x)
        variant = apply("int8-weight-only", model, x).model
        assert relative_error(run(variant, x), original) < 0.02

    def test_an_attention_with_other_sizes_for_keys_and_values(self) -> None:
        torch.manual_seed(0)

        class Cross(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(32, 4, kdim=16, vdim=24, add_bias_kv=True, batch_first=True)

            def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
                return self.attention(q, k, v)[0]

        inputs = (torch.randn(2, 5, 32), torch.randn(2, 7, 16), torch.randn(2, 7, 24))
        model = Cross().eval()
        original = run(model, inputs)
        optimization = apply("int8-weight-only", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < 0.02
        assert optimization.coverage.changed_bytes == (32 * 32 + 32 * 16 + 32 * 24 + 32 * 32) * FLOAT32

    def test_works_compiled(self) -> None:
        model, inputs = make("two inputs")
        variant = apply("int8-weight-only", model, inputs).model
        expected = run(variant, inputs)
        compiled: Any = torch.compile(variant, backend="aot_eager", fullgraph=True)
        assert relative_error(run(compiled, inputs), expected) < 1e-5

    def test_half_an_encoder_layer_replaced_turns_its_fused_path_off(self) -> None:
        model, inputs = make("encoder")
        assert isinstance(model, Encoder)
        for layer in model.encoder.layers:
            layer.linear1.register_forward_hook(lambda *_: None)
            layer.linear2.register_forward_hook(lambda *_: None)
        original = run(model, inputs)
        optimization = apply("int8-weight-only", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < 0.02
        assert "fused eval path" in " ".join(optimization.notes)


class TestSharing:
    def test_a_tied_weight_is_stored_once_and_serves_both(self) -> None:
        model, inputs = make("tied")
        variant = saved_and_loaded(apply("int8-weight-only", model, inputs).model)
        assert variant.embed.rows is variant.head.rows
        assert weights_bytes(variant) == 50 * 64 + 64 * 64 + (50 + 64) * SCALE + 64 * FLOAT32

    def test_a_shared_module_stays_shared(self) -> None:
        variant = apply("int8-weight-only", *make("shared")).model
        assert variant.again is variant.once_more

    def test_a_weight_shared_with_what_keeps_it_is_kept_by_all(self) -> None:
        class Bag(nn.EmbeddingBag):
            """Not a class that is replaced."""

        model: Any = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False))
        model.add_module("bag", Bag(20, 16))
        model[2].weight = model[0].weight = model.bag.weight
        model.forward = lambda x: model[2](model[1](model[0](x))) + model.bag(x)[:, :1, None]
        optimization = apply("int8-weight-only", model, torch.randint(0, 20, (2, 3)))
        assert model[0].weight is model[2].weight is model.bag.weight
        notes = " | ".join(optimization.notes)
        assert "1 Embedding (1.25 KiB), 1 Linear (1.25 KiB) left as they are: another module shares" in notes
        assert optimization.coverage.changed_bytes == 16 * 16 * FLOAT32


class TestNotes:
    def test_subclasses_and_parametrized_layers_are_left_and_named_in_bytes(self) -> None:
        model, inputs = make("subclass")
        parametrizations.spectral_norm(model.hidden)
        notes = " | ".join(apply("int8-weight-only", model, inputs).notes)
        assert "1 MyLinear (32.5 KiB)" in notes
        assert "1 Linear (64.5 KiB) left as they are: their `weight` is parametrized" in notes

    @pytest.mark.parametrize(
        ("layer", "reason"),
        [
            (nn.Embedding(50, 64, max_norm=1.0), "max_norm makes every call write into their weight"),
            (nn.utils.spectral_norm(nn.Embedding(50, 64)), "spectral norm makes their `weight` anew for each call"),
            (nn.Embedding(50, 1), "their rows are so short"),
        ],
    )
    def test_what_cannot_be_quantized_is_said_with_the_reason(self, layer: nn.Module, reason: str) -> None:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(0.01)  # below max_norm, so that a call has nothing to write
        with pytest.raises(RecipeDidNothing, match=reason):
            apply("int8-weight-only", nn.Sequential(layer), torch.randint(0, 50, (2, 3)))

    def test_infinite_weights_are_left_alone(self) -> None:
        model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        with torch.no_grad():
            model[0].weight[0, 0] = float("inf")
        optimization = apply("int8-weight-only", model, torch.randn(2, 8))
        assert "a weight is infinite or NaN" in " ".join(optimization.notes)
        assert optimization.coverage.changed_bytes == 8 * 8 * FLOAT32

    def test_says_what_a_call_rebuilds(self) -> None:
        notes = " | ".join(apply("int8-weight-only", *make("lstm")).notes)
        size = (4 * 64 * (32 + 64) + 8 * 64) * FLOAT32 // 1024
        assert f"1 LSTM ({size} KiB) rebuild all of their float weights in every call, up to {size} KiB" in notes


class TestCallMemory:
    def test_a_large_linear_never_holds_its_whole_weight_in_floating_point(self) -> None:
        model, x = nn.Sequential(nn.Linear(1024, 2048)).eval(), torch.randn(1, 1024)
        variant = apply("int8-weight-only", model, x).model
        run(variant, x)
        peak = call_peak_bytes(lambda: run(variant, x))
        # one block of weights, the block before it that is still being replaced, and a few rows of results
        assert BLOCK_WEIGHTS * FLOAT32 <= peak < 2 * BLOCK_WEIGHTS * FLOAT32 + 64 * 2048 < 1024 * 2048 * FLOAT32

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_nor_does_one_in_16_bits(self, dtype: torch.dtype) -> None:
        model = nn.Sequential(nn.Linear(1024, 2048)).eval().to(dtype)
        x = torch.randn(1, 1024).to(dtype)
        variant = apply("int8-weight-only", model, x).model
        assert call_peak_bytes(lambda: run(variant, x)) < 3 * BLOCK_WEIGHTS * FLOAT32 < 1024 * 2048 * 2

    def test_a_convolution_in_16_bits_is_rebuilt_without_a_copy_in_32_and_what_it_costs_is_told(self) -> None:
        model = nn.Sequential(nn.Conv2d(256, 256, 3)).eval().bfloat16()
        x = torch.randn(1, 256, 3, 3).bfloat16()
        count = 256 * 256 * 9
        optimization = apply("int8-weight-only", model, x)
        variant = optimization.model
        run(variant, x)
        assert weights_bytes(variant) == count * INT8 + 256 * SCALE + 256 * 2
        assert call_peak_bytes(lambda: run(variant, x)) < count * 4.5  # the weight, oneDNN's copy of it, and a block
        (note,) = [note for note in optimization.notes if "rebuild" in note]
        assert note == (
            "1 Conv2d (1.13 MiB) rebuild all of their float weights in every call, up to 1.13 MiB at a time: with the "
            "int8 weights that is 1.69 MiB where the original holds 1.12 MiB, so the peak memory of a call rises "
            "though the size falls"
        )

    def test_a_small_one_holds_an_eighth_of_it(self) -> None:
        model, x = nn.Sequential(nn.Linear(512, 512)).eval(), torch.randn(1, 512)
        variant = apply("int8-weight-only", model, x).model
        run(variant, x)
        assert call_peak_bytes(lambda: run(variant, x)) < 2 * 512 * 512 // 8 * FLOAT32 + 64 * 512

    @pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
    def test_rebuilt_weights_are_gone_after_the_call(self, kind: type[nn.LSTM | nn.GRU], gates: int) -> None:
        model, inputs = Recurrent(kind).eval(), torch.randint(0, 50, (3, 9))
        variant = apply("int8-weight-only", model, inputs).model
        run(variant, inputs)
        weights = 50 * 32 + gates * 64 * (32 + 64) + 64 * 96 + 96 * 5
        rows = 50 + 2 * gates * 64 + 96 + 5
        biases = 2 * gates * 64 + 96 + 5
        assert weights_bytes(variant) == weights * INT8 + rows * SCALE + biases * FLOAT32
