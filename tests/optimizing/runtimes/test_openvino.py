"""openvino and openvino-int8 on each kind of model: right answers, honest coverage, the same bytes each time."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map, tree_structure

from pytest_modelopt.measuring.worker.memory.tensor_meter import ForeignRuntime, weights_bytes
from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.openvino import openvino_ir
from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import OpenVinoModule, packed, unpacked
from pytest_modelopt.optimizing.runtimes.openvino.openvino_weights import Before, Quantized
from pytest_modelopt.optimizing.runtimes.program_file_module import load
from tests.optimizing.keep_oracle import require_kept
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    Optimized,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)

FLOAT32 = 4
ROUNDING = 1e-5
"""Some ten layers of sums of up to 576 products, each of which rounds to 6e-8 of its size."""
STEPS_OF_INT8 = 0.06
"""Up to eight layers, whose weights and activations are each within half a step of 255 of their largest number."""
MODELS = (*KINDS, *TRAPS)


CONVERT = openvino_ir.convert


@functools.cache
def conversion(kind: str) -> openvino_ir.Converted:
    """In float32; it takes a second or two, and every recipe begins with it."""
    model, inputs = make(kind)
    return CONVERT(model, Context(inputs, None, seed=0), "openvino")


@functools.cache
def made(expression: str, kind: str) -> Optimized:
    """Applied once for all tests, to a copy of the one conversion of that kind."""

    def converted(model: nn.Module, context: Context, recipe_name: str) -> openvino_ir.Converted:
        once = conversion(kind)
        return replace(once, ir=once.ir.clone())

    model, inputs = make(kind)
    with pytest.MonkeyPatch.context() as patch:
        if " + " not in expression:
            patch.setattr(openvino_ir, "convert", converted)
        return apply(expression, model, inputs)


def notes_of(optimization: Optimization) -> str:
    return " | ".join(optimization.notes)


def with_inputs(expression: str, model: nn.Module, inputs: Any, *varying: set[int], calibration: Any = None) -> Any:
    sizes = tuple(frozenset(dimensions) for dimensions in varying)
    context = Context(inputs, calibration or (lambda: iter([inputs] * 4)), seed=0, varying=lambda: sizes)
    return optimize(model.eval(), parse(expression).steps, context)


class Calls(nn.Module):
    """A model whose forward is the function that is given."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(8, 8)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("expression", "tolerance"), [("openvino", ROUNDING), ("openvino-int8", STEPS_OF_INT8)])
def test_a_variant_answers_as_the_original_and_reloads_bit_by_bit(expression: str, tolerance: float, kind: str) -> None:
    model, inputs = make(kind)
    original = run(model, inputs)
    variant = made(expression, kind).model
    answer = run(variant, inputs)
    assert not variant.training
    assert tree_structure(answer) == tree_structure(original)
    assert [tensor.dtype for tensor in outputs(answer)] == [tensor.dtype for tensor in outputs(original)]
    assert relative_error(answer, original) < tolerance
    again = run(saved_and_loaded(variant), inputs)
    assert all(torch.equal(one, other) for one, other in zip(outputs(again), outputs(answer), strict=True))


@pytest.mark.parametrize("kind", ["mlp", "cnn", "masked encoder", "lstm", "attention", "two inputs"])
def test_batches_of_other_examples_and_sizes_are_answered_too(kind: str) -> None:
    model, inputs = make(kind)
    torch.manual_seed(1)
    more = tree_map(lambda tensor: torch.cat([tensor, tensor.flip(0), tensor[:1]]), inputs)
    more = tree_map(lambda tensor: tensor + torch.randn_like(tensor) if tensor.dtype is torch.float32 else tensor, more)
    one = tree_map(lambda tensor: tensor[:1], inputs)
    for batch in (more, one):
        assert relative_error(run(made("openvino", kind).model, batch), run(model, batch)) < ROUNDING


def test_one_example_makes_a_variant_for_any_number() -> None:
    model, _ = make("cnn")
    optimization = with_inputs("openvino", model, torch.randn(1, 3, 16, 16))
    batch = torch.randn(5, 3, 16, 16)
    assert relative_error(run(optimization.model, batch), run(make("cnn")[0], batch)) < ROUNDING


@pytest.mark.parametrize("kind", ["lstm", "gru", "attention"])
def test_lengths_that_vary_are_left_open(kind: str) -> None:
    model, inputs = make(kind)
    variant = with_inputs("openvino", model, inputs, {1}).model
    for length in (3, 14):
        batch = torch.randint(0, 50, (2, length)) if kind != "attention" else torch.randn(2, length, 16)
        assert relative_error(run(variant, batch), run(make(kind)[0], batch)) < ROUNDING


def test_sizes_that_do_not_vary_are_fixed_since_the_conversion_may_rely_on_them() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        run(made("openvino", "lstm").model, torch.randint(0, 50, (3, 8)))


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda m, x, unused, y: m.linear(y) * x, (torch.rand(4, 8), torch.randn(2, 3), torch.randn(4, 8))),
        (lambda m, y=None, x=None: m.linear(x) - y, {"x": torch.randn(4, 8), "y": torch.randn(4, 8)}),
        (lambda m, x: 2 * (m.linear(x),), torch.randn(4, 8)),
        (lambda m, x: (m.linear(x), x), torch.randn(4, 8)),
        (lambda m, x: {"b": m.linear(x).argmax(1), "a": m.linear(x) > 0, "c": m.linear(x)}, torch.randn(4, 8)),
        (lambda m, x, scale: m.linear(x) * scale, (torch.randn(4, 8), torch.tensor(3.0))),
    ],
    ids=["an input without use", "keywords in another order", "twice the same", "an input", "types", "a scalar"],
)
def test_inputs_and_outputs_keep_their_places(function: Callable[..., Any], inputs: Any) -> None:
    torch.manual_seed(0)
    model = Calls(function)
    original = run(model, inputs)
    answer = run(with_inputs("openvino", model, inputs).model, inputs)
    assert tree_structure(answer) == tree_structure(original)
    for one, other in zip(outputs(answer), outputs(original), strict=True):
        torch.testing.assert_close(one, other)


def test_outputs_are_tensors_of_their_own() -> None:
    variant = made("openvino", "mlp").model
    first = run(variant, torch.ones(4, 64))
    kept = first.clone()
    run(variant, torch.zeros(4, 64)).fill_(7)
    assert torch.equal(first, kept)


def test_layers_of_recurrent_kinds_are_traced_whole() -> None:
    torch.manual_seed(0)
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        layers = kind(8, 16, 2, batch_first=True, bidirectional=True)
        inputs = torch.randn(2, 5, 8)
        variant = with_inputs("openvino", Calls(lambda m, x: m.layers(x)[0], layers=layers), inputs).model
        assert relative_error(run(variant, inputs), run(layers, inputs)[0]) < ROUNDING
        assert unpacked(variant.program)[0].count(b"Sequence_") == 2, "one operation per layer, not one per time step"


class RecurrentThenAttention(nn.Module):
    """Traced for its recurrent layer; the attention behind it takes torch's fused path."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(16, 16, batch_first=True)
        self.attention = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.attention(self.recurrent(x)[0])


def test_attention_behind_a_recurrent_layer_is_traced_with_it() -> None:
    torch.manual_seed(0)
    model, inputs = RecurrentThenAttention().eval(), torch.randn(2, 5, 16)
    original = run(model, inputs)
    assert relative_error(run(with_inputs("openvino", model, inputs).model, inputs), original) < ROUNDING


# --- coverage, by hand -----------------------------------------------------------------------------------------------

# The matrices of each model, by the formulas of their architectures: a norm's or a bias's numbers stay float32.
MLP = 64 * 128 + 128 * 128 + 128 * 10
CNN = (
    *(9 * 3 * 16, 9 * 16 * 32, 9 * 32 * 32, 16 * 32),  # stem, and block1 with its shortcut
    *(9 * 32, 9 * 32 * 64, 9 * 64 * 64, 32 * 64, 64 * 10),  # depthwise, block2, head
)
ENCODER = 16 * 64 + 2 * (3 * 64 * 64 + 64 * 64 + 2 * 64 * 128) + 64 * 5
AROUND_RECURRENT = 50 * 32 + 64 * 96 + 96 * 5
LSTM = 4 * 64 * (32 + 64)


@pytest.mark.parametrize(
    ("expression", "kind", "matrices"),
    [
        ("openvino-int8", "mlp", MLP),
        ("openvino-int8", "cnn", sum(CNN)),
        ("openvino-int8", "encoder", ENCODER),
        ("openvino-int8", "lstm", AROUND_RECURRENT),
        ("openvino-int8(recurrent=true)", "lstm", AROUND_RECURRENT + LSTM),
        ("openvino-int8", "gru", AROUND_RECURRENT),
        ("openvino-int8", "tied", 50 * 64 + 64 * 64),
        ("openvino-int8(weights_only=true)", "mlp", MLP),
        ("openvino-int8(weights_only=true)", "cnn", sum(CNN)),
        ("openvino-int8(weights_only=true)", "lstm", AROUND_RECURRENT),
    ],
)
def test_int8_changes_the_matrices_and_nothing_else(expression: str, kind: str, matrices: int) -> None:
    coverage = made(expression, kind).coverage
    assert coverage.changed_bytes == matrices * FLOAT32
    assert coverage.weight_bytes == sum(p.nbytes for p in make(kind)[0].parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_openvino_reaches_all_of_the_model(kind: str) -> None:
    coverage = made("openvino", kind).coverage
    assert coverage.changed_bytes == coverage.weight_bytes == sum(p.nbytes for p in make(kind)[0].parameters())


@pytest.mark.parametrize("kind", ["mlp", "cnn", "lstm", "gru"])
def test_the_program_holds_float32_and_not_float16(kind: str) -> None:
    optimization = made("openvino", kind)
    coverage = optimization.coverage
    # Folded batch norms and a recurrent layer's two biases are fewer numbers; of shapes there are some more.
    fewer = {"cnn": 2 * 2 * (32 + 64), "lstm": 4 * 64, "gru": 2 * 64}.get(kind, 0) * FLOAT32
    constants = len(unpacked(optimization.model.program)[1])
    assert coverage.weight_bytes - fewer <= constants < coverage.weight_bytes + 1000


@pytest.mark.parametrize(("expression", "scale"), [("openvino-int8", 4), ("openvino-int8(weights_only=true)", 2)])
def test_the_program_holds_a_byte_per_weight_and_a_scale_per_channel(expression: str, scale: int) -> None:
    """NNCF scales in float32, and in float16 with a zero point in uint8 where it quantizes weights only."""
    constants = len(unpacked(made(expression, "mlp").model.program)[1])
    channels = 128 + 128 + 10
    assert MLP + channels * (FLOAT32 + scale) <= constants < MLP + channels * (FLOAT32 + scale + 1) + 200


@pytest.mark.parametrize("layers", [("Convolution", "GroupConvolution"), ("MatMul",)])
def test_a_weight_that_is_folded_but_not_quantized_is_not_counted(layers: tuple[str, ...]) -> None:
    """The batch norms change the numbers of convolutions, which stay float32 if NNCF is told to leave them alone."""
    model, inputs = make("cnn")
    converted = openvino_ir.convert(model, Context(inputs, None, 0), "openvino-int8")
    before = Before.of(converted.ir)
    with openvino_ir.quiet(), openvino_ir.quiet_nncf():
        nncf = openvino_ir.load_nncf()
        dataset, scope = nncf.Dataset([[inputs.numpy()]]), nncf.IgnoredScope(types=list(layers))
        quantized = nncf.quantize(converted.ir, dataset, ignored_scope=scope, subset_size=1)
    kept = before.compared_with(quantized).kept(model)
    tensors = tuple(dict(model.named_parameters())[name].detach() for name in kept.known)
    variant = OpenVinoModule(packed(quantized), converted.signature, kept=tensors)
    changed = sum(layer.changed_bytes for layer in compare(snapshot(model), variant, source=model))
    assert kept.unknown == ()
    assert changed == FLOAT32 * (64 * 10 if "Convolution" in layers else sum(CNN) - 64 * 10)
    folded = OpenVinoModule(packed(quantized), converted.signature)
    assert sum(layer.changed_bytes for layer in compare(snapshot(model), folded, source=model)) > changed, (
        "the naive count"
    )


def test_batch_norms_and_weight_norms_around_other_layers_are_followed() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()
    )
    model.append(nn.Linear(4 * 64, 16)).append(nn.BatchNorm1d(16))
    with torch.no_grad():
        for norm in (model[1], model[6]):
            norm.weight.uniform_(0.5, 2)
            norm.running_var.uniform_(0.5, 2)
    coverage = with_inputs("openvino-int8", model, torch.randn(2, 3, 6, 6)).coverage
    assert coverage.changed_bytes == (9 * 3 * 8 + 8 * 4 + 4 * 64 * 16) * FLOAT32


def test_weights_of_the_same_shape_are_told_apart_after_folding() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False))
    first, second = (layer.weight.detach() * torch.rand(4, 1, 1, 1) for layer in model)
    kept = Quantized(integers=[first], floats=[second], recurrent=frozenset()).kept(model)
    assert (kept.known, kept.unknown) == (("1.weight",), ())
    other = Quantized(integers=[torch.randn(4, 4, 3, 3)], floats=[second], recurrent=frozenset()).kept(model)
    assert (other.known, other.unknown) == (("1.weight",), ("0.weight",))


def test_a_weight_of_which_only_the_shape_is_read_elsewhere_is_not_held_in_float_for_that() -> None:
    """The initial state of a recurrent layer is as wide as what comes out of the embedding."""
    optimization = with_inputs("openvino-int8", *make("lstm"), {1})
    assert optimization.coverage.changed_bytes == AROUND_RECURRENT * FLOAT32


def test_what_is_not_found_again_counts_as_left_in_float() -> None:
    model = Calls(lambda m, x: m.body(x), body=nn.Linear(8, 32))
    optimization = with_inputs("openvino-int8", model, torch.randn(4, 8))
    assert optimization.coverage.changed_bytes == 8 * 32 * FLOAT32
    assert "1 Linear (256 B) left in floating point or without use" in notes_of(optimization)


def test_a_step_before_is_seen_as_such() -> None:
    first, second = made("prune-unstructured(ratio=0.5) + openvino-int8", "mlp").coverage.steps
    assert second.changed_bytes == MLP * FLOAT32
    assert 0 < first.changed_bytes <= MLP * FLOAT32


# --- notes and errors ------------------------------------------------------------------------------------------------


def test_quantized_recurrent_weights_are_named_only_where_there_are_any() -> None:
    warning = "weights of LSTM were quantized"
    assert warning in notes_of(made("openvino-int8(recurrent=true)", "lstm"))
    for expression, kind in [("openvino-int8", "lstm"), ("openvino-int8", "gru"), ("openvino-int8", "mlp")]:
        assert warning not in notes_of(made(expression, kind))


def test_layers_that_stay_float_are_named_with_their_bytes() -> None:
    lstm, gru = notes_of(made("openvino-int8", "lstm")), notes_of(made("openvino-int8", "gru"))
    assert f"1 LSTM ({LSTM * FLOAT32 // 1024} KiB) left in floating point: OpenVINO's int8 LSTM can give" in lstm
    assert f"1 GRU ({LSTM * 3 // 4 * FLOAT32 // 1024} KiB) left in floating point: NNCF does not" in gru
    assert "left in floating point" not in notes_of(made("openvino-int8", "mlp"))


def test_the_difference_that_quantization_made_is_noted() -> None:
    model, inputs = make("mlp")
    optimization = made("openvino-int8", "mlp")
    error = relative_error(run(optimization.model, inputs), run(model, inputs))
    assert f"differ from the original's by {error:.1%} of their largest number" in notes_of(optimization)


def test_the_precision_is_said() -> None:
    assert "floating point is computed in float32" in notes_of(made("openvino", "mlp"))
    optimization = apply("openvino(precision=auto)", *make("mlp"))
    chosen = optimization.model.engine.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string()
    assert f"on this CPU OpenVINO chose {chosen}" in notes_of(optimization)


def test_a_file_runs_in_the_precision_of_the_recipe_that_made_it(tmp_path: Path) -> None:
    """On a processor with bfloat16 OpenVINO would take that by itself, for the file as for the recipe."""
    _, inputs = make("mlp")
    variant = made("openvino", "mlp").model
    answer = run(variant, inputs)
    for suffix, content in variant.parts().items():
        (tmp_path / f"mlp{suffix}").write_bytes(content)
    program: Any = load(str(tmp_path / "mlp.xml"), "mlp.xml", inputs, answer, {})
    hints = [each.engine.get_compiled_model().get_property("INFERENCE_PRECISION_HINT") for each in (variant, program)]
    assert hints[0] == hints[1]
    assert torch.equal(run(program, inputs), answer)
    assert "serve it with INFERENCE_PRECISION_HINT=f32" in program.setting


def test_parameters_reach_nncf() -> None:
    xml = unpacked(apply("openvino-int8(model=transformer, preset=mixed, batches=2)", *make("mlp")).model.program)[0]
    for setting in (b'<preset value="mixed"', b'<model_type value="transformer"', b'<subset_size value="2"'):
        assert setting in xml


def test_calibration_data_is_needed_but_for_weights_only() -> None:
    model, inputs = make("mlp")
    alone = Context(inputs, None, seed=0)
    with pytest.raises(RecipeError, match=r"openvino-int8 needs calibration data: add `calibration: package\.module"):
        optimize(model, parse("openvino-int8").steps, alone)
    assert (
        optimize(model, parse("openvino-int8(weights_only=true)").steps, alone).coverage.changed_bytes == MLP * FLOAT32
    )


def test_calibration_that_is_empty_short_or_unfit_is_said() -> None:
    model, inputs = make("mlp")
    with pytest.raises(RecipeError, match="the calibration gave no batch"):
        with_inputs("openvino-int8", model, inputs, calibration=lambda: iter([]))
    with pytest.raises(RecipeError, match="does not run on calibration batch 2: "):
        with_inputs("openvino-int8", model, inputs, calibration=lambda: iter([inputs, torch.zeros(2, 7)]))
    short = with_inputs("openvino-int8", model, inputs, calibration=lambda: iter([inputs]))
    assert "calibrated with 1 of 4 batches" in notes_of(short)


def test_parameters_without_effect_are_refused() -> None:
    with pytest.raises(RecipeError, match="batches and preset of openvino-int8 has no effect with weights_only"):
        apply("openvino-int8(weights_only=true, batches=8, preset=mixed)", *make("mlp"))


class Decides(nn.Module):
    """Loops over time in Python, after a layer that is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        states = self.layer(x)[0]
        if x.sum() > 1e9:
            states = -states
        return sum(states[:, step] for step in range(x.shape[1]))


def _cannot_be_traced(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise ValueError("no tracing here")
    answer: torch.Tensor = module.get_submodule("recurrent")(x)[0]
    return answer


def refusals() -> dict[str, tuple[nn.Module, Any, str]]:
    x = torch.randn(4, 8)
    return {
        "half": (
            nn.Linear(8, 8).half(),
            x.half(),
            "needs float32 weights, and the model holds float16: call .float",
        ),
        "double": (nn.Linear(8, 8).double(), x.double(), "the model holds float64"),
        "branch": (
            Calls(lambda m, x: m.linear(x) if x.sum() > 0 else x),
            x,
            r"torch\.export can trace, and Calls is not \(test_openvino\.py:\d+: ",
        ),
        "operation": (Calls(lambda m, x: torch.fft.rfft(m.linear(x)).abs()), x, r"No conversion rule .*aten\._fft_r2c"),
        "size": (
            Calls(lambda m, x: (m.linear(x), x.shape[0])),
            x,
            "for a batch of twice as many examples Calls returns",
        ),
        "nothing": (Calls(lambda m, x: 3), x, "returns tensors, and Calls returns none"),
    }


@pytest.mark.parametrize("why", refusals())
def test_a_model_that_cannot_be_converted_is_told_why(why: str) -> None:
    model, inputs, message = refusals()[why]
    with pytest.raises(RecipeError, match=message):
        with_inputs("openvino", model, inputs)


def test_a_trace_that_froze_a_length_is_found_out() -> None:
    with pytest.raises(RecipeError, match="answers differently on longer inputs: its outputs differ by"):
        with_inputs("openvino", Decides(), torch.randn(2, 5, 8), {1})


def test_what_a_trace_decided_in_python_is_named() -> None:
    notes = notes_of(with_inputs("openvino", Decides(), torch.randn(2, 5, 8)))
    line = Decides.forward.__code__.co_firstlineno + 2
    assert f"what Python decides in test_openvino.py:{line} is now fixed" in notes
    assert "what Python decides" not in notes_of(made("openvino", "lstm"))


def test_where_nothing_can_be_quantized_the_layers_are_named() -> None:
    with pytest.raises(RecipeDidNothing) as error:
        with_inputs("openvino-int8", nn.Sequential(nn.LSTM(8, 8), _First()), torch.randn(4, 2, 8))
    assert "1 LSTM (2 KiB) left in floating point: OpenVINO's int8 LSTM" in str(error.value)
    with pytest.raises(RecipeDidNothing, match="openvino changed nothing: the model holds no weights"):
        with_inputs("openvino", nn.ReLU(), torch.randn(2, 2))


class _First(nn.Module):
    def forward(self, answer: tuple[torch.Tensor, Any]) -> torch.Tensor:
        return answer[0]


@pytest.mark.parametrize("first", ["openvino", "openvino-int8"])
def test_nothing_can_follow(first: str) -> None:
    with pytest.raises(RecipeError, match=f"low-rank cannot follow {first}: {first} hands the model over"):
        parse(f"{first} + low-rank")


# --- the engine ------------------------------------------------------------------------------------------------------


def test_the_engine_works_with_torchs_threads_and_follows_them() -> None:
    variant = saved_and_loaded(made("openvino", "mlp").model)

    def setting(name: str) -> Any:
        return variant.engine.get_compiled_model().get_property(name)

    assert setting("INFERENCE_NUM_THREADS") == 1
    assert setting("NUM_STREAMS") == 1
    assert setting("ENABLE_CPU_PINNING") is False
    assert setting("INFERENCE_PRECISION_HINT").to_string() == "f32"
    torch.set_num_threads(2)
    assert setting("INFERENCE_NUM_THREADS") == 2


@pytest.mark.parametrize("expression", ["openvino", "openvino-int8"])
def test_the_memory_of_a_variant_is_another_runtimes(expression: str) -> None:
    model = made(expression, "mlp").model
    run(model, make("mlp")[1])
    with pytest.raises(ForeignRuntime) as error:
        weights_bytes(nn.Sequential(model))
    assert error.value.runtime == "OpenVINO"


# --- what is left behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(fails: bool, capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[Any, ...]:
        root, nncf = logging.getLogger(), logging.getLogger("nncf")
        loggers = root.level, root.filters[:], root.handlers[:], nncf.level, logging.getLoggerClass()
        return (
            *loggers,
            dict(os.environ),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
        )

    made("openvino-int8", "mlp")  # torch.export names its cache's folder in the environment when it is first imported
    before = state()
    if fails:
        with pytest.raises(RecipeError):
            with_inputs("openvino", Calls(lambda m, x: torch.fft.rfft(m.linear(x)).abs()), torch.randn(4, 8))
    else:
        apply("openvino-int8", *make("mlp"))
    assert state() == before
    assert capfd.readouterr() == ("", "")


def in_a_process_with(home: Path, script: str, *arguments: str) -> str:
    """What the script prints, in a process that nobody has told to be quiet."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == [], "OpenVINO's telemetry keeps its files there"
    return done.stdout


FRESH = """
    import os, sys, warnings
    from pathlib import Path
    warnings.simplefilter("error")
    sys.path.insert(0, {folder!r})
    import torch
    from tests.optimizing.recipe_models import apply, make, run
    torch.set_num_threads(1)
    variant = torch.load({saved!r}, weights_only=False)
    model, inputs = make("cnn")
    assert torch.equal(run(variant, inputs), torch.load({answer!r})), "other answers"
    assert "nncf" not in sys.modules, "a variant needs OpenVINO only"
    again = apply("openvino-int8", model, inputs).model
    assert again.program == variant.program, "other bytes"
    from openvino_telemetry import Telemetry
    assert Telemetry().consent is False
    assert "CI" not in os.environ
"""


def test_a_fresh_process_answers_the_same_makes_the_same_bytes_and_sends_nothing_home(tmp_path: Path) -> None:
    model, inputs = make("cnn")
    variant = made("openvino-int8", "cnn").model
    assert apply("openvino-int8", model, inputs).model.program == variant.program
    saved, answer, home = tmp_path / "variant.pt", tmp_path / "answer.pt", tmp_path / "home"
    home.mkdir()
    torch.save(variant, saved, pickle_module=cloudpickle)
    torch.save(run(variant, inputs), answer)
    script = FRESH.format(folder=str(Path(__file__).parents[3]), saved=str(saved), answer=str(answer))
    assert in_a_process_with(home, script) == ""


PEAK = """
    import sys
    from pathlib import Path
    from pytest_modelopt.measuring.worker.memory import process_memory
    print(*process_memory.peak_bytes(Path(sys.argv[1]), Path(sys.argv[2]), "OpenVINO"))
"""


def test_the_process_meter_sees_the_variants_weights(tmp_path: Path) -> None:
    """At least the weights; at most five times: file, parsed model, weights, a packed copy, one in passing."""
    from pytest_modelopt.measuring.worker.files import size

    inputs = torch.zeros(8, 1000)
    size.save(with_inputs("openvino", nn.Sequential(nn.Linear(1000, 500)), inputs).model, tmp_path / "model.pt")
    size.save(inputs, tmp_path / "inputs.pt")
    home = tmp_path / "home"
    home.mkdir()
    peak = in_a_process_with(home, PEAK, str(tmp_path / "model.pt"), str(tmp_path / "inputs.pt")).split()[0]
    weights = 500 * 1001 * FLOAT32
    assert weights < int(peak) < 5 * weights + 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("recipe", "kind", "keep", "whole"),
    [
        ("openvino-int8(weights_only=true)", "mlp", "2", {"0", "2", "4"}),
        ("openvino-int8", "attention", "head,wide", {"embed", "qkv", "project", "wide", "narrow", "head"}),
    ],
)
def test_what_keep_names_stays_in_floating_point(recipe: str, kind: str, keep: str, whole: set[str]) -> None:
    require_kept(recipe, kind, keep, whole)
