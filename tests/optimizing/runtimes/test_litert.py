"""litert and litert-int8 on every kind of model: right answers, honest coverage, any batch, and refusals in words."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.files.size import saved_bytes
from pytest_modelopt.measuring.worker.memory.file_makeup import makeup
from pytest_modelopt.measuring.worker.memory.tensor_meter import ForeignRuntime, weights_bytes
from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.folding import left_in_float
from pytest_modelopt.optimizing.runtimes.litert import litert
from pytest_modelopt.optimizing.runtimes.litert.tflite import float_constants
from tests.diagnosis.cases_by_hand import sound, told
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    Answers,
    HandWrittenAttention,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)
from tests.optimizing.runtimes.unconvertible_models import REFUSALS

FLOAT32 = 4
TOLERANCES = {"litert": 1e-5, "litert-int8": 0.05, "static": 0.1, "float": 0.05}
"""Relative to the largest answer. float32 has 24 bits, of which sums over a few hundred terms lose some; int8 rounds
each weight by up to 1/254 of its channel's largest, and each activation by 1/510 of its range, layer by layer."""


@dataclass(frozen=True)
class Made:
    """A variant with what the original was asked and answered."""

    optimization: Optimization
    inputs: Inputs
    original: Any

    @property
    def program(self) -> bytes:
        program = self.optimization.model.program
        assert isinstance(program, bytes)
        return program

    @property
    def notes(self) -> str:
        return " | ".join(self.optimization.notes)


PROGRAMS: dict[str, bytes] = {}
"""What litert_torch has made of each kind: that takes a second or two, and the int8 variants begin with the same."""


@contextlib.contextmanager
def converted_once(kind: str) -> Iterator[None]:
    """Let litert_torch convert this kind of model only where no test has done so before."""
    convert = litert._converted

    def converted(flat: Any, tensors: tuple[torch.Tensor, ...], recipe_name: str) -> bytes:
        if kind not in PROGRAMS:
            PROGRAMS[kind] = convert(flat, tensors, recipe_name)
        return PROGRAMS[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert, "_converted", converted)
        yield


@functools.cache
def made(expression: str, kind: str) -> Made:
    """Applied once for all tests."""
    torch.set_num_threads(1)
    model, inputs = make(kind)
    if kind == "cnn":
        train_batch_norm(model)
    original = run(model, inputs)
    with converted_once(kind):
        return Made(apply(expression, model, inputs), inputs, original)


def train_batch_norm(model: nn.Module) -> None:
    """Statistics and factors as training leaves them, some factors negative: folded, they change every number."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


def refused(expression: str, model: nn.Module, inputs: Inputs, **context: Any) -> str:
    with pytest.raises(RecipeError) as error:
        optimize(model, parse(expression).steps, Context(inputs, None, seed=0, **context))
    return str(error.value)


# --- every kind of model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
@pytest.mark.parametrize("expression", ["litert", "litert-int8"])
def test_a_variant_answers_as_the_original_and_reloads_bit_by_bit(expression: str, kind: str) -> None:
    variant = made(expression, kind)
    answers = run(variant.optimization.model, variant.inputs)
    assert relative_error(answers, variant.original) < TOLERANCES[expression]
    assert type(answers) is type(variant.original)
    again = run(saved_and_loaded(variant.optimization.model), variant.inputs)
    for one, other, original in zip(outputs(answers), outputs(again), outputs(variant.original), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == original.dtype
    assert not variant.optimization.model.training
    assert variant.optimization.coverage.share > (0.97 if expression == "litert-int8" else 0.9999)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "masked encoder", "gru", "two inputs"])
def test_static_activations_answer_as_the_original(kind: str) -> None:
    variant = made("litert-int8(activations=static)", kind)
    assert relative_error(run(variant.optimization.model, variant.inputs), variant.original) < TOLERANCES["static"]
    assert variant.optimization.coverage.share > 0.7
    assert "calibrated with" not in variant.notes


def test_float_activations_make_it_as_small_and_closer() -> None:
    dynamic, weights_only = made("litert-int8", "attention"), made("litert-int8(activations=float)", "attention")
    error = relative_error(run(weights_only.optimization.model, weights_only.inputs), weights_only.original)
    assert error < TOLERANCES["float"]
    assert weights_only.optimization.coverage.changed_bytes == dynamic.optimization.coverage.changed_bytes
    assert len(weights_only.program) < 0.5 * len(made("litert", "attention").program)


def test_constants_in_the_output_come_back_in_place() -> None:
    variant = made("litert", "tuple output")
    _, (_, nothing, number) = run(variant.optimization.model, variant.inputs)
    assert (nothing, number) == (None, 3)


def test_the_answers_of_two_calls_do_not_share_memory() -> None:
    variant = made("litert", "mlp").optimization.model
    first = run(variant, torch.zeros(4, 64))
    kept = first.clone()
    run(variant, torch.ones(4, 64))
    assert torch.equal(first, kept)


# --- coverage, by hand -----------------------------------------------------------------------------------------------

CNN_WEIGHTS = (
    16 * 3 * 9  # stem
    + (32 * 16 * 9 + 32 * 32 * 9 + 32 * 16)  # block1
    + 32 * 9  # depthwise
    + (64 * 32 * 9 + 64 * 64 * 9 + 64 * 32)  # block2
    + 64 * 10  # head
)
ATTENTION = 3 * 64 * 64 + 64 * 64
WEIGHTS = {
    "mlp": 64 * 128 + 128 * 128 + 128 * 10,
    "cnn": CNN_WEIGHTS,
    "encoder": 2 * (ATTENTION + 2 * 64 * 128) + 16 * 64 + 64 * 5,
    "attention": 16 * 64 + ATTENTION + 2 * 64 * 128 + 64 * 5,
    "lstm": 50 * 32 + 4 * 64 * (32 + 64) + 64 * 96 + 96 * 5,
    "gru": 50 * 32 + 3 * 64 * (32 + 64) + 64 * 96 + 96 * 5,
    "tied": 50 * 64 + 64 * 64,
    "subclass": 64 * 128 + 128 * 128 + 128 * 10,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_dynamic_int8_changes_all_matrices_and_filters_and_nothing_else(kind: str) -> None:
    """Biases and norms stay in floating point, also where batch norm or a factor was folded into them."""
    assert made("litert-int8", kind).optimization.coverage.changed_bytes == WEIGHTS[kind] * FLOAT32


def test_static_int8_changes_biases_too_but_no_embedding() -> None:
    coverage = made("litert-int8(activations=static)", "two inputs").optimization.coverage
    assert coverage.changed_bytes == (64 * 128 + 128 + 128 * 10 + 10) * FLOAT32
    assert "1 Embedding (12.5 KiB) left in floating point: Google's quantizer has no int8 form" in (
        made("litert-int8(activations=static)", "two inputs").notes
    )


class Video(nn.Module):
    """Three-dimensional convolutions, for which the quantizer has no int8 form, and batch norm folded into one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 8, 3, bias=False)
        self.norm = nn.BatchNorm3d(8)
        self.head = nn.Linear(8, 4)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        assert self.norm.running_mean is not None
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3, 4)))


def test_a_filter_that_was_folded_and_stays_in_float_is_not_quantized() -> None:
    torch.manual_seed(0)
    model, inputs = Video().eval(), torch.randn(2, 2, 5, 5, 5)
    filters = model.conv.weight.detach().clone()
    original = run(model, inputs)
    optimization = apply("litert-int8", model, inputs)
    numbers = torch.cat([constant.flatten() for constant in float_constants(optimization.model.program)])
    assert relative_error(run(optimization.model, inputs), original) < TOLERANCES["litert-int8"]
    assert len(numbers) >= filters.numel(), "the filters are in the program in floating point"
    assert optimization.coverage.changed_bytes == 8 * 4 * FLOAT32
    assert any("1 Conv3d (1.69 KiB) left in floating point" in note for note in optimization.notes)


class TestEvidence:
    """Of which weights the quantizer took hold, when the converter had scaled them before."""

    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([1.5, -2.0, 0.0, 1e-3, 7.0, -0.1, 1.0, 3.0])

    def folded(self) -> torch.Tensor:
        return (self.weight * self.factors[:, None, None, None]).permute(0, 2, 3, 1).contiguous()

    def test_a_scaled_filter_that_vanished_was_quantized(self) -> None:
        assert left_in_float([self.weight], [self.folded()], []) == ()

    def test_a_scaled_filter_that_is_still_there_was_not(self) -> None:
        assert left_in_float([self.weight], [self.folded()], [self.folded()]) == (self.weight,)

    def test_another_filter_of_the_same_size_is_no_evidence(self) -> None:
        other = torch.randn(8, 3, 3, 4, generator=torch.Generator().manual_seed(1))
        assert left_in_float([self.weight], [other], []) == (self.weight,)

    @pytest.mark.parametrize("transposed", [False, True])
    def test_depthwise_and_transposed_filters_have_their_channels_elsewhere(self, transposed: bool) -> None:
        weight = self.weight.transpose(0, 1).contiguous() if transposed else self.weight[:, :1].contiguous()
        scaled = (self.folded() if transposed else self.folded()[..., :1].permute(3, 1, 2, 0)).contiguous()
        assert left_in_float([weight], [scaled], []) == ()

    def test_a_vector_of_ones_is_not_found_in_a_matrix_nor_in_a_scalar(self) -> None:
        ones = torch.ones(8)
        assert left_in_float([ones], [torch.ones(8, 8), torch.ones(())], []) == (ones,)
        assert left_in_float([ones], [torch.ones(1, 8)], []) == ()

    def test_a_weight_that_the_converter_dropped_was_not_quantized(self) -> None:
        assert left_in_float([self.weight], [], []) == (self.weight,)


def test_a_pruned_model_is_converted_with_its_zeros() -> None:
    optimization = apply("prune-unstructured(ratio=0.5) + litert", *make("mlp"))
    numbers = [constant for constant in float_constants(optimization.model.program) if constant.dim() == 2]
    zeros = sum(int((constant == 0).sum()) for constant in numbers)
    assert zeros == sum(constant.numel() for constant in numbers) // 2
    assert [step.recipe for step in optimization.coverage.steps] == ["prune-unstructured(ratio=0.5)", "litert"]


def test_a_recurrent_layer_that_was_unrolled_is_named_where_the_file_grew() -> None:
    """All weights are changed, and the file is larger: the operators of the layer stand there once for each step."""
    variant, (model, x) = made("litert", "lstm"), make("lstm")
    sizes = saved_bytes(model), saved_bytes(variant.optimization.model)
    assert variant.optimization.coverage.share > 0.99
    assert sizes[1] > 1.2 * sizes[0]
    case = sound("litert", layers=variant.optimization.coverage.layers)
    sides = (case.reference, model, sizes[0]), (case.variant, variant.optimization.model, sizes[1])
    reference, after = (
        replace(side, size_bytes=size, observations=replace(side.observations, makeup=makeup(of, lambda: None, None)))
        for side, of, size in sides
        if side is not None and side.observations is not None
    )
    (finding,) = [each for each in told(replace(case, reference=reference, variant=after)) if "size" in each.explains]
    found = re.search(r": a graph of (\d+) operations, (\d+) of them of recurrent \(LSTM\)$", finding.text)
    assert found is not None, finding.text
    steps, operations, of_layer = x.shape[1], int(found[1]), int(found[2])
    assert 12 * steps < of_layer < operations < of_layer + 12, "a product, four gates and the state for each step"


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [1, 3, 4, 5, 8, 64])
def test_any_number_of_examples_is_answered_in_parts(examples: int) -> None:
    model, _ = make("mlp")
    inputs = torch.randn(examples, 64, generator=torch.Generator().manual_seed(examples))
    variant = made("litert", "mlp")
    assert relative_error(run(variant.optimization.model, inputs), run(model, inputs)) < TOLERANCES["litert"]
    assert "takes 4 examples at a time" in variant.notes


def test_no_example_at_all_gives_no_answer() -> None:
    assert run(made("litert", "mlp").optimization.model, torch.empty(0, 64)).shape == (0, 10)


def test_parts_of_several_inputs_and_outputs_stay_together() -> None:
    model, _ = make("two inputs")
    inputs = {"tokens": torch.randint(0, 50, (7, 9)), "mask": (torch.rand(7, 9) > 0.3).float()}
    answers = run(made("litert", "two inputs").optimization.model, inputs)
    assert relative_error(answers, run(model, inputs)) < TOLERANCES["litert"]


def test_other_sizes_and_other_arguments_are_refused_in_words() -> None:
    model = made("litert", "two inputs").optimization.model
    tokens = torch.zeros(3, 9, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"converted for inputs of shape \(examples, 9\) and .*, not \(3, 8\) and"):
        model(tokens=tokens[:, :8], mask=torch.ones(3, 9))
    with pytest.raises(ValueError, match="every size but the number of examples is fixed"):
        model(tokens=tokens, mask=torch.ones(2, 9))
    with pytest.raises(ValueError, match="whole numbers beyond the 32 bits"):
        model(tokens=tokens + 2**31, mask=torch.ones(3, 9))
    with pytest.raises(TypeError, match=r"exactly the arguments that it was converted with: \(tokens=, mask=\)"):
        model(tokens)


def test_the_number_of_threads_is_torchs() -> None:
    variant = saved_and_loaded(made("litert", "mlp").optimization.model)
    one = run(variant, torch.ones(4, 64))
    engine = variant.engine
    torch.set_num_threads(2)
    assert torch.allclose(run(variant, torch.ones(4, 64)), one)
    assert variant.engine is not engine


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("expression", ["litert", "litert-int8"])
def test_what_cannot_be_converted_is_refused_with_the_reason(expression: str, name: str) -> None:
    factory, inputs, sentence = REFUSALS[name]
    torch.manual_seed(0)
    message = refused(expression, factory().eval(), inputs)
    assert message.startswith(expression)
    assert sentence in message


@pytest.mark.parametrize(
    ("kind", "varying", "words"),
    [
        ("two inputs", (frozenset({1}), frozenset({1})), "dimension 1 of input `tokens`"),
        ("masked encoder", (frozenset(), frozenset({1})), "dimension 1 of input 2"),
    ],
)
def test_sizes_that_vary_are_refused_by_name(kind: str, varying: tuple[frozenset[int], ...], words: str) -> None:
    message = refused("litert-int8", *make(kind), varying=lambda: varying)
    assert message == (
        f"litert-int8 converts for fixed sizes, and {words} differs between the project's batches: pad them to one "
        "size; onnxruntime and openvino leave such a size open"
    )


def test_a_model_for_one_size_of_batch_is_converted() -> None:
    model, inputs = nn.Sequential(nn.Flatten(0), nn.Linear(16, 4), nn.Unflatten(0, (2, 2))).eval(), torch.randn(2, 8)
    original = run(model, inputs)
    assert relative_error(run(apply("litert", model, inputs).model, inputs), original) < TOLERANCES["litert"]


def test_a_users_own_litert_model_has_no_weights_for_recipes() -> None:
    """What a project has that was trained in Keras or TensorFlow and converted: only its interpreter."""
    from tests.measuring import foreign_models

    for expression in ("int8-dynamic", "prune-unstructured(ratio=0.5)", "low-rank", "litert", "litert-int8"):
        with pytest.raises(RecipeDidNothing) as error:
            apply(expression, foreign_models.litert(), foreign_models.inputs())
        assert str(error.value) == (
            f"{expression.partition('(')[0]} changed nothing: the model holds no weights in torch: `session` is an "
            "object of LiteRT, which keeps its weights to itself; apply the recipe to the torch model before it is "
            "handed to LiteRT"
        )


# --- calibration -----------------------------------------------------------------------------------------------------


def calibrated(batches: list[Inputs], model: nn.Module, inputs: Inputs, options: str = "") -> Optimization:
    recipes = parse(f"litert-int8(activations=static{options})").steps
    return optimize(model, recipes, Context(inputs, lambda: iter(batches), seed=0))


def test_static_activations_need_calibration_data() -> None:
    message = refused("litert-int8(activations=static)", *make("mlp"))
    assert message.startswith("litert-int8(activations=static) needs calibration data: add `calibration: ")
    with (
        converted_once("mlp"),
        pytest.raises(RecipeError, match="needs calibration data, and the calibration gave no batch"),
    ):
        calibrated([], *make("mlp"))


def test_batches_without_static_activations_are_no_silent_wish() -> None:
    message = refused("litert-int8(batches=8)", *make("mlp"))
    assert "activations=dynamic is not calibrated: leave it out, or write activations=static" in message


def test_a_calibration_batch_that_does_not_fit_is_named() -> None:
    with (
        converted_once("mlp"),
        pytest.raises(RecipeError, match=r"does not run on calibration batch 2: ValueError: .* not \(4, 63\)"),
    ):
        calibrated([torch.randn(4, 64), torch.randn(4, 63)], *make("mlp"))


def test_every_calibration_batch_widens_the_range_whatever_their_order_and_size() -> None:
    """A moving average, which is the quantizer's own way, would stay near the small first batch and clip the others."""
    model, inputs = make("mlp")
    original = run(model, inputs)
    with converted_once("mlp"):
        optimization = calibrated([0.01 * inputs, torch.cat([inputs, 0.5 * inputs, inputs[:1]])], model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < TOLERANCES["static"]
    assert any("calibrated with 2 of 4 batches" in note for note in optimization.notes)


def test_no_more_than_the_asked_for_batches_are_read() -> None:
    read = []

    def batches() -> Iterator[Inputs]:
        for number in range(9):
            read.append(number)
            yield torch.randn(4, 64)

    model, inputs = make("mlp")
    with converted_once("mlp"):
        optimize(model, parse("litert-int8(activations=static, batches=2)").steps, Context(inputs, batches, seed=0))
    assert read == [0, 1]


class Masked(HandWrittenAttention):
    """Attention with a mask as many write it: a huge negative number instead of infinity."""

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> Any:  # type: ignore[override]
        x = self.embed(x)
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).reshape(batch, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / 4
        weights = scores.masked_fill(padding[:, None, None], -1e9).softmax(-1)
        return self.head(self.project((weights @ value).transpose(1, 2).reshape(batch, length, -1))[:, 0])


@pytest.mark.parametrize("mask", [float("-inf"), -1e9])
def test_static_int8_still_ignores_what_is_masked(mask: float) -> None:
    """Int8 scores beside a mask would make one of the two a zero: the padding would count, or nothing else would."""
    torch.manual_seed(0)
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    model = (Masked(16) if mask == -1e9 else make("masked encoder")[0]).eval()
    inputs = (torch.randn(2, 7, 16), padding)
    other = (torch.where(padding[..., None], 3 * torch.ones(()), inputs[0]), padding)
    original = run(model, inputs)
    optimization = calibrated([inputs, other], model, inputs)
    answers = run(optimization.model, inputs)
    assert relative_error(answers, original) < TOLERANCES["static"]
    assert torch.equal(run(optimization.model, other)[1], answers[1])
    assert any("operators left in floating point: they add a mask" in note for note in optimization.notes)


# --- what is measured ------------------------------------------------------------------------------------------------


def test_the_tensor_meter_knows_whose_memory_it_is() -> None:
    variant = made("litert-int8", "mlp")
    run(variant.optimization.model, variant.inputs)
    with pytest.raises(ForeignRuntime) as error:
        weights_bytes(variant.optimization.model)
    assert error.value.runtime == "LiteRT"


def test_what_is_saved_is_the_program_and_little_more(tmp_path: Path) -> None:
    variant = made("litert-int8", "cnn")
    torch.save(variant.optimization.model, tmp_path / "model.pt", pickle_module=cloudpickle)
    assert len(variant.program) < (tmp_path / "model.pt").stat().st_size < len(variant.program) + 8192
    assert len(variant.program) < 0.4 * CNN_WEIGHTS * FLOAT32
    held = len(list(float_constants(variant.program)))
    assert len(list(saved_and_loaded(variant.optimization.model).float_tensors())) == held, (
        "no folded weights beside it"
    )


FRESH = """
import sys
from pathlib import Path
from pytest_modelopt.measuring.worker.memory import process_memory
from pytest_modelopt.measuring.worker.files import size
import torch

torch.set_num_threads(1)
folder = Path(sys.argv[1])
peak, meter = process_memory.peak_bytes(folder / "model.pt", folder / "inputs.pt", "LiteRT")
model = size.load(folder / "model.pt")
torch.save(model(size.load(folder / "inputs.pt")), folder / "answers.pt")
print(peak, meter, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_fresh_process_needs_only_the_runtime(tmp_path: Path) -> None:
    variant = made("litert", "mlp")
    torch.save(variant.optimization.model, tmp_path / "model.pt", pickle_module=cloudpickle)
    torch.save(variant.inputs, tmp_path / "inputs.pt")
    peak, meter, *modules = _python(FRESH, str(tmp_path)).split()
    assert "ai_edge_litert" in modules
    assert {"litert_torch", "litert_converter", "ai_edge_quantizer", "jax", "tensorflow"}.isdisjoint(modules)
    answers = torch.load(tmp_path / "answers.pt")
    assert torch.equal(answers, run(variant.optimization.model, variant.inputs))
    assert meter in ("memray", "VmHWM")
    assert int(peak) > WEIGHTS["mlp"] * FLOAT32


STATE = """
import hashlib, json, logging, os, sys, warnings
import numpy, torch
from tests.optimizing.recipe_models import apply, make

def state():
    loggers = logging.root.manager.loggerDict
    return {
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "fused": torch.backends.mha.get_fastpath_enabled(),
        "engine": torch.backends.quantized.engine,
        "precision": torch.get_float32_matmul_precision(),
        "environment": dict(os.environ),
        "drawn": numpy.random.get_state()[1].tolist(),
        "filters": [str(found) for found in warnings.filters if "Warning" not in str(found)],
        "handlers": [len(logging.root.handlers), len(logging.getLogger("torch").handlers)],
        "decompositions": len(torch._decomp.decomposition_table),
    }

apply("prune-unstructured(ratio=0.5)", *make("mlp"))
before = state()
digests = [hashlib.sha256(apply(e, *make("mlp")).model.program).hexdigest() for e in ("litert", "litert-int8")]
print(json.dumps({"before": before, "after": state(), "digests": digests}))
"""


def test_programs_repeat_to_the_byte_and_the_process_stays_as_it_was() -> None:
    found = json.loads(_python(STATE).splitlines()[-1])
    assert found["after"] == found["before"]
    here = [hashlib.sha256(made(expression, "mlp").program).hexdigest() for expression in ("litert", "litert-int8")]
    assert found["digests"] == here


def _python(script: str, *arguments: str) -> str:
    paths = [str(Path(__file__).parents[3]), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_several_models_of_one_process_do_not_disturb_each_other() -> None:
    """Answers of a dict model after many others were converted: names of tensors are each program's own."""
    variant = made("litert", "dict output")
    model = Answers(dict)
    model.load_state_dict(make("dict output")[0].state_dict())
    assert relative_error(run(variant.optimization.model, variant.inputs), run(model, variant.inputs)) < 1e-5
    assert set(run(variant.optimization.model, variant.inputs)) == {"logits", "side"}


@pytest.mark.parametrize("recipe", ["litert-int8", "litert-int8(activations=static)"])
def test_what_keep_names_stays_in_floating_point(recipe: str) -> None:
    model, inputs = make("cnn")
    train_batch_norm(model)
    with converted_once("cnn"):
        optimization = apply(
            recipe.removesuffix(")") + ("," if "(" in recipe else "(") + "keep='block1,head')", model, inputs
        )
    changed = {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}
    whole = {layer.name for layer in made("litert-int8", "cnn").optimization.coverage.layers if layer.changed_bytes}
    assert {"block1.conv1", "block1.conv2", "head", "stem", "block2.conv1"} <= whole
    assert changed == {name for name in whole if not name.startswith(("block1", "head"))}
