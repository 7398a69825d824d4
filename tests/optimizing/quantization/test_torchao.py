"""torchao's quantized tensors: right answers on every kind, bytes by hand, reloadable anywhere, and honest coverage."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from pytest_modelopt.measuring.worker.memory.tensor_meter import weights_bytes
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.quantization.torchao_float8_dynamic import TorchaoFloat8Dynamic
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    MyLinear,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)

EXPRESSIONS = ("torchao-int8-dynamic", "torchao-int8-weight-only")
FLOAT32, ROW = 4, 4 + 1
"""A row of torchao's int8 weights has a float32 scale and an int8 zero point, which is 0."""


def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_flags, "name_and_flags", lambda: ("An old CPU", frozenset({"avx2"})))


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_close_and_reloadable_on_every_kind(expression: str, kind: str) -> None:
    model, inputs = make(kind)
    original = run(model, inputs)
    optimization = apply(expression, model, inputs)
    answers = run(optimization.model, inputs)
    # 7 or 8 bits for weights, and for activations under one scale per row
    assert relative_error(answers, original) < 0.06
    again = outputs(run(saved_and_loaded(optimization.model), inputs))
    assert all(torch.equal(one, other) for one, other in zip(again, outputs(answers), strict=True))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_bytes_and_coverage_counted_by_hand(expression: str) -> None:
    optimization = apply(expression, *make("mlp"))
    weights, outputs_ = 64 * 128 + 128 * 128 + 128 * 10, 128 + 128 + 10
    assert weights_bytes(optimization.model) == weights + outputs_ * (ROW + FLOAT32)
    assert optimization.coverage.changed_bytes == weights * FLOAT32
    assert optimization.coverage.weight_bytes == (weights + outputs_) * FLOAT32


def test_dynamic_int8_equals_integer_arithmetic_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """y = sum(qx * qw) * sx * sw + b in exact integers, for torchao's own int8 values and scales."""
    model: Any
    model, x = nn.Sequential(nn.Linear(96, 40)).eval(), torch.randn(5, 96)
    variant = apply("torchao-int8-dynamic", model, x).model
    weight = variant[0].weight
    low, high = (-64, 63) if weight.reduce_range else (-128, 127)
    scales = (x.abs().amax(1, keepdim=True) / ((high - low) / 2)).double()
    values = (x.double() / scales).round().clamp(low, high)
    products = values.long() @ weight.qdata.long().T
    expected = products.double() * scales * weight.scale.double().T + model[0].bias.detach().double()
    step = float(scales.max() * weight.scale.abs().max()) * 127  # one activation may round the other way
    assert float((run(variant, x).double() - expected).abs().max()) <= step


def test_saved_they_answer_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    saved = []
    for expression in EXPRESSIONS:
        model, inputs = make("mlp")
        variant = apply(expression, model, inputs).model
        plain = nn.Sequential(*variant)  # of classes that a process without the tests can import
        saved.append((plain, inputs, run(variant, inputs)))
    torch.save(saved, tmp_path / "variants.pt", pickle_module=cloudpickle)
    loads = (
        "import torch; torch.set_num_threads(1); torch.set_grad_enabled(False)\n"
        "for model, inputs, answer in torch.load('variants.pt', weights_only=False):\n"
        "    assert torch.equal(model(inputs), answer); print(type(model[0].weight).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", loads], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Int8Tensor\n" * 2), done.stderr


def test_a_variant_can_be_saved_with_the_plain_pickle_too() -> None:
    variant = apply("torchao-int8-weight-only", *make("shared")).model
    torch.save(variant, io.BytesIO(), pickle_module=pickle)


def test_the_compilers_settings_stay_as_they_are() -> None:
    import torch._inductor.config as inductor

    before = inductor.save_config_portable(), torch.get_float32_matmul_precision()
    apply("torchao-int8-dynamic", *make("mlp"))
    assert (inductor.save_config_portable(), torch.get_float32_matmul_precision()) == before


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_compiled_it_gives_the_same_answers(expression: str) -> None:
    model, inputs = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)).eval(), torch.randn(4, 32)
    variant = apply(expression, model, inputs).model
    expected = run(variant, inputs)
    with torch_ao.quiet(), torch.no_grad():
        compiled: Any = torch.compile(variant, backend="inductor", fullgraph=True)
        assert relative_error(compiled(inputs), expected) < 0.01  # an activation may round the other way


class TestWhatIsLeftAlone:
    def test_attention_is_named_with_its_bytes(self) -> None:
        notes = " | ".join(apply("torchao-int8-dynamic", *make("encoder")).notes)
        assert f"in_proj_weight nor out_proj of them, together {2 * 4 * 64 * 64 * 4 // 1024} KiB" in notes
        assert "2 TransformerEncoderLayer through torch's fused eval path" in notes

    def test_tied_weights_stay_tied(self) -> None:
        model, inputs = make("tied")
        optimization = apply("torchao-int8-weight-only", model, inputs)
        assert optimization.model.head.weight is optimization.model.embed.weight
        assert weights_bytes(optimization.model) == (50 * 64 + 64) * FLOAT32 + 64 * 64 + 64 * ROW
        assert "1 Linear (12.5 KiB) left as they are: another module shares" in " ".join(optimization.notes)

    def test_groups_and_embeddings_hold_what_the_note_says(self) -> None:
        model = nn.Sequential(nn.Embedding(40, 64), nn.Linear(64, 96), nn.Linear(96, 20))
        inputs = torch.randint(0, 40, (2, 3))
        original = run(model.eval(), inputs)
        optimization = apply("torchao-int8-weight-only(group=64)", model, inputs)
        assert relative_error(run(optimization.model, inputs), original) < 0.02
        assert weights_bytes(optimization.model) == (40 + 96) * (64 + 5) + 20 * 96 * FLOAT32 + (96 + 20) * FLOAT32
        notes = " | ".join(optimization.notes)
        assert f"1 Embedding and 1 Linear hold {8 * 69 / 64:.2f} bits a weight, scales included" in notes
        assert "1 Linear (7.58 KiB) left as they are: their rows of 96 weights cannot be cut into groups of 64" in notes

    def test_an_embedding_that_writes_into_its_weight_is_kept(self) -> None:
        model = nn.Sequential(nn.Embedding(40, 64, max_norm=100.0), nn.Linear(64, 8))
        notes = apply("torchao-int8-weight-only", model, torch.randint(0, 40, (2, 3))).notes
        assert "1 Embedding (10 KiB) left as they are: max_norm makes every call write into their weight" in notes

    def test_a_shared_module_is_quantized_once(self) -> None:
        optimization = apply("torchao-int8-weight-only", *make("shared"))
        assert optimization.model.again is optimization.model.once_more
        assert type(optimization.model.again.weight.qdata) is torch.Tensor

    def test_a_subclass_that_calls_linear_is_quantized_and_keeps_its_forward(self) -> None:
        model, inputs = make("subclass")
        optimization = apply("torchao-int8-weight-only", model, inputs)
        assert type(optimization.model.mine) is MyLinear
        assert all(layer.changed_bytes for layer in optimization.coverage.layers)

    def test_a_subclass_that_uses_its_weight_otherwise_gets_it_back(self) -> None:
        class Transposes(nn.Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return 2 * (x @ self.weight.t()) + self.bias

        model, x = nn.Sequential(Transposes(16, 16), nn.Linear(16, 8)).eval(), torch.randn(2, 16)
        original = run(model, x)
        optimization = apply("torchao-int8-weight-only", model, x)
        assert relative_error(run(optimization.model, x), original) < 0.02
        assert optimization.coverage.changed_bytes == 16 * 8 * FLOAT32
        assert "1 Transposes (1.06 KiB) left as they are: the model does not run" in " ".join(optimization.notes)

    def test_computed_and_infinite_weights_are_kept(self) -> None:
        model: Any = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5))).eval()
        parametrizations.spectral_norm(model[0])
        prune.l1_unstructured(model[1], "weight", 0.5)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            model[2].weight[0, 0] = float("inf")
        model[3].extra_repr = lambda: "mine"
        optimization = apply("torchao-int8-weight-only", model, torch.randn(2, 16))
        notes = " | ".join(optimization.notes)
        assert "1 Linear (1.06 KiB) left as they are: their `weight` is parametrized, made anew for each call" in notes
        assert "1 Linear (1.06 KiB) left as they are: a pruning mask makes their `weight` anew for each call" in notes
        assert "1 Linear (1.06 KiB) left as they are: a weight is infinite or NaN" in notes
        assert optimization.coverage.changed_bytes == 2 * 16 * 16 * FLOAT32
        assert model[3].extra_repr() == "mine"

    def test_convolutions_only_is_nothing_to_do(self) -> None:
        with pytest.raises(
            RecipeDidNothing, match="torchao-int8-dynamic changes Linear only; Conv2d is changed by int8"
        ):
            apply("torchao-int8-dynamic", nn.Sequential(nn.Conv2d(3, 8, 3)), torch.randn(1, 3, 8, 8))


class TestNotes:
    def test_says_that_it_is_to_be_compiled(self) -> None:
        notes = " | ".join(apply("torchao-int8-dynamic", *make("mlp")).notes)
        assert "write torchao-int8-dynamic + compile" in notes

    def test_without_vnni_a_bit_is_given_up_and_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without_vnni(monkeypatch)
        model, inputs = make("mlp")
        original = run(model, inputs)
        optimization = apply("torchao-int8-dynamic", model, inputs)
        assert int(optimization.model[0].weight.qdata.abs().max()) <= 64
        assert relative_error(run(optimization.model, inputs), original) < 0.06
        assert "this CPU has no VNNI" in " ".join(optimization.notes)

    def test_missing_torchao_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchao", None)
        with pytest.raises(RecipeError, match=r'needs torchao: run `pip install "pytest-modelopt\[torchao\]"`'):
            apply("torchao-int8-dynamic", *make("mlp"))


class TestFloat8:
    def refused(self, device: str = "cuda") -> str:
        model, inputs = make("mlp")
        with pytest.raises(RecipeError) as error:
            optimize(model, parse("torchao-float8-dynamic").steps, Context(inputs, None, seed=0, device=device))
        return str(error.value)

    def test_a_cpu_is_refused_with_a_way_out(self) -> None:
        reason = self.refused("cpu")
        assert "run on cuda only, not on cpu" in reason
        assert "use int8-dynamic there" in reason

    def test_no_gpu_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert self.refused() == "torchao-float8-dynamic needs a GPU, and torch finds none here"

    def test_an_older_gpu_is_refused_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10")
        assert "compute capability 8.9 or higher (Ada, Hopper), and NVIDIA A10 has 8.6; use fp16" in self.refused()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        assert TorchaoFloat8Dynamic.unfit("cuda") == ""

    def test_sizes_that_its_kernel_does_not_take_are_misfits(self) -> None:
        assert "multiples of 16" in TorchaoFloat8Dynamic().misfit(nn.Linear(64, 10))
        assert TorchaoFloat8Dynamic().misfit(nn.Linear(64, 32)) == ""

    def test_torchao_takes_our_settings(self) -> None:
        config = TorchaoFloat8Dynamic().config(Context(torch.randn(1), None, seed=0, device="cuda"))
        assert (config.set_inductor_config, config.weight_dtype) == (False, torch.float8_e4m3fn)


class TestCoverageOfTensorClasses:
    """What a step after torchao, `compile` for one, compares with."""

    def quantized(self) -> Any:
        return apply(
            "torchao-int8-weight-only", nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(2, 8)
        ).model

    def test_each_weight_is_seen_with_the_bytes_that_it_holds(self) -> None:
        layer = 8 * 8 + 8 * ROW + 8 * FLOAT32
        assert snapshot(self.quantized()).layers() == (("0", "Linear", layer), ("1", "Linear", layer))

    def test_unchanged_bits_are_unchanged(self) -> None:
        model = self.quantized()
        assert sum(layer.changed_bytes for layer in compare(snapshot(model), model)) == 0

    @pytest.mark.parametrize("part", ["qdata", "scale"])
    def test_another_number_anywhere_is_a_change(self, part: str) -> None:
        model = self.quantized()
        before = snapshot(model)
        getattr(model[1].weight, part)[0, 0] += 1
        assert [layer.changed_bytes for layer in compare(before, model)] == [0, 8 * 8 + 8 * ROW]
