"""ONNX Runtime's recipes: right answers on every kind of model, honest coverage, and refusals that say why."""

from __future__ import annotations

import functools
import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn
from torch.nn.utils import parametrizations

from pytest_modelopt.measuring.worker.memory.tensor_meter import ForeignRuntime, weights_bytes
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.apply import Optimization, RecipeDidNothing, optimize
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from pytest_modelopt.optimizing.runtimes.onnxruntime import onnx_conversion
from pytest_modelopt.optimizing.runtimes.onnxruntime import onnxruntime as float_recipe
from pytest_modelopt.optimizing.runtimes.onnxruntime import onnxruntime_int8_dynamic as dynamic_recipe
from pytest_modelopt.optimizing.runtimes.onnxruntime import onnxruntime_int8_static as static_recipe
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_module import OnnxModule
from tests.optimizing.keep_oracle import require_kept
from tests.optimizing.recipe_models import (
    KINDS,
    TRAPS,
    Made,
    Optimized,
    apply,
    make,
    outputs,
    relative_error,
    run,
    saved_and_loaded,
)
from tests.optimizing.runtimes.unconvertible_models import Counter

FLOAT32 = 4
FLOAT_TOLERANCE = 1e-5
"""A sum of some hundred float32 products, in another order, in each of ten layers."""
INT8_TOLERANCE = 0.1
"""Ten products in a row, each off by up to 1/255 of its activations' range and 1/126 of its weights' (in 7 bits)."""


@pytest.fixture(autouse=True)
def _converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion of a model of `make` is the same for all three recipes: to do it once saves a minute."""
    for recipe in (float_recipe, dynamic_recipe, static_recipe):
        monkeypatch.setattr(recipe, "convert", _convert_once)


def _convert_once(model: nn.Module, context: Context, recipe_name: str) -> onnx_conversion.Conversion:
    kind = getattr(model, "kind_of_the_tests", None)
    if kind is None:
        return onnx_conversion.convert(model, context, recipe_name)
    conversion = _conversion(kind)
    proto = onnx.ModelProto()
    proto.CopyFrom(conversion.proto)
    return replace(conversion, proto=proto)


@functools.cache
def _conversion(kind: str) -> onnx_conversion.Conversion:
    model, inputs = make(kind)
    return onnx_conversion.convert(model, Context(inputs, None, seed=0), "onnxruntime")


def made(kind: str) -> Made:
    model, inputs = make(kind)
    model.kind_of_the_tests = kind
    return model, inputs


def apply_to(kind: str, expression: str) -> Optimized:
    return apply(expression, *made(kind))


def changed(optimization: Optimization) -> dict[str, int]:
    """Changed bytes of each layer."""
    return {layer.name: layer.changed_bytes for layer in optimization.coverage.layers}


# --- every kind of model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
@pytest.mark.parametrize(
    ("expression", "tolerance"),
    [
        ("onnxruntime", FLOAT_TOLERANCE),
        ("onnxruntime-int8-dynamic", INT8_TOLERANCE),
        ("onnxruntime-int8-static", INT8_TOLERANCE),
    ],
)
def test_a_variant_answers_as_the_original_and_reloads(expression: str, tolerance: float, kind: str) -> None:
    model, inputs = made(kind)
    original = run(model, inputs)
    optimization = apply(expression, model, inputs)
    answer = run(optimization.model, inputs)
    assert type(answer) is type(original)
    assert relative_error(answer, original) < tolerance
    assert [one.dtype for one in outputs(answer)] == [one.dtype for one in outputs(original)]
    again = run(saved_and_loaded(optimization.model), inputs)
    assert all(torch.equal(one, other) for one, other in zip(outputs(again), outputs(answer), strict=True))
    assert 0 < optimization.coverage.share <= 1
    if "int8" in expression:
        assert not torch.equal(outputs(answer)[0], outputs(original)[0]), "int8 answers cannot be the same"


def test_what_is_no_tensor_in_an_answer_stays_in_its_place() -> None:
    model, inputs = made("tuple output")
    logits, (side, nothing, three) = run(apply("onnxruntime", model, inputs).model, inputs)
    assert (logits.shape, side.shape) == ((4, 10), (4, 64))
    assert nothing is None
    assert three == 3


def test_any_number_of_examples_can_be_given() -> None:
    model, _ = make("cnn")
    variant = apply_to("cnn", "onnxruntime").model
    for examples in (1, 2, 5):
        images = torch.randn(examples, 3, 16, 16)
        assert relative_error(run(variant, images), run(model, images)) < FLOAT_TOLERANCE


class KeywordsInAnyOrder(nn.Module):
    """`unused` is an input that no exporter needs to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor, unused: torch.Tensor | None = None) -> Any:
        return self.layer(a) - 2 * b


@pytest.mark.parametrize("expression", ["onnxruntime", "onnxruntime-int8-static"])
def test_keywords_come_in_any_order_and_unused_inputs_are_accepted(expression: str) -> None:
    inputs = {"b": torch.randn(3, 4), "unused": torch.randn(3, 4), "a": torch.randn(3, 4)}
    model = KeywordsInAnyOrder().eval()
    expected = run(model, inputs)
    variant = apply(expression, model, inputs).model
    for order in (("a", "b", "unused"), ("unused", "b", "a")):
        answer = run(variant, {name: inputs[name] for name in order})
        assert relative_error(answer, expected) < (FLOAT_TOLERANCE if expression == "onnxruntime" else INT8_TOLERANCE)
    with pytest.raises(TypeError, match="takes exactly the arguments that it was converted with"):
        variant(inputs["a"], inputs["b"])


def test_answers_are_tensors_of_their_own() -> None:
    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer = self.layer(x)
            return answer, answer, x

    inputs = torch.randn(2, 4)
    variant = apply("onnxruntime", Passes().eval(), inputs).model
    first, twice, passed = run(variant, inputs)
    first.zero_()
    passed.zero_()
    assert twice.abs().max() > 0
    assert inputs.abs().max() > 0
    assert run(variant, inputs)[0].abs().max() > 0


def test_a_fresh_process_answers_the_same_bits(tmp_path: Path) -> None:
    _, inputs = make("gru")
    variant = apply_to("gru", "onnxruntime-int8-dynamic").model
    torch.save(variant, tmp_path / "variant.pt", pickle_module=cloudpickle)
    torch.save(inputs, tmp_path / "inputs.pt")
    script = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "variant = torch.load(sys.argv[1] + '/variant.pt', weights_only=False)\n"
        "torch.save(variant(torch.load(sys.argv[1] + '/inputs.pt')), sys.argv[1] + '/answer.pt')\n"
        "assert 'onnx' not in sys.modules and 'onnxscript' not in sys.modules, 'to run needs onnxruntime only'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path)], check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "answer.pt"), run(variant, inputs))


def test_a_saved_variant_is_the_program_and_little_else() -> None:
    variant = apply_to("cnn", "onnxruntime").model
    buffer = io.BytesIO()
    torch.save(variant, buffer, pickle_module=cloudpickle)
    weight_bytes = sum(parameter.nbytes for parameter in make("cnn")[0].parameters())
    # 16 operators and their names; the exporter's stack traces alone would take 20,000 bytes
    assert weight_bytes < len(buffer.getvalue()) < weight_bytes + 12_000
    assert str(Path(__file__).parent).encode() not in variant.program


def test_the_same_model_gives_the_same_program() -> None:
    one, other = (apply("onnxruntime-int8-static", *make("mlp")).model for _ in range(2))
    assert one.program == other.program


# --- the engine ------------------------------------------------------------------------------------------------------


def test_the_engine_follows_torchs_threads_and_never_spins() -> None:
    _, inputs = make("mlp")
    variant = apply_to("mlp", "onnxruntime").model
    for threads in (1, 2):
        torch.set_num_threads(threads)
        run(variant, inputs)
        options = variant.engine.get_session_options()
        assert options.intra_op_num_threads == threads
        assert options.inter_op_num_threads == 1
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert variant.engine.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("expression", ["onnxruntime", "onnxruntime-int8-dynamic", "onnxruntime-int8-static"])
def test_the_tensor_meter_names_the_runtime(expression: str) -> None:
    with pytest.raises(ForeignRuntime) as found:
        weights_bytes(apply_to("mlp", expression).model)
    assert found.value.runtime == OnnxModule.runtime == "ONNX Runtime"


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_nothing_is_printed_and_nothing_of_the_process_changes(
    method: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root, threads, dtype = logging.getLogger(), torch.get_num_threads(), torch.get_default_dtype()
    handlers, filters = list(root.handlers), list(warnings.filters)
    apply(f"onnxruntime-int8-static(method={method})", *make("lstm"))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (list(root.handlers), list(warnings.filters)) == (handlers, filters)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("recipe", ["dynamic", "static"])
def test_a_root_logger_without_handlers_gets_none(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's tools call `logging.info`, which would give it one that prints everybody's messages."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    apply_to("mlp", f"onnxruntime-int8-{recipe}")
    assert logging.getLogger().handlers == []


# --- coverage, counted by hand ---------------------------------------------------------------------------------------


def test_the_whole_model_runs_elsewhere_in_float_too() -> None:
    coverage = apply_to("gru", "onnxruntime").coverage
    assert coverage.changed_bytes == coverage.weight_bytes
    program = apply_to("gru", "onnxruntime").model
    source = make("gru")[0]
    kept = compare(snapshot(source), program, source=source)
    assert sum(layer.changed_bytes for layer in kept) == 0, "ONNX reorders the gates and keeps every number"


def test_int8_dynamic_of_an_mlp_keeps_the_biases() -> None:
    coverage = apply_to("mlp", "onnxruntime-int8-dynamic").coverage
    assert coverage.changed_bytes == (64 * 128 + 128 * 128 + 128 * 10) * FLOAT32
    assert coverage.weight_bytes - coverage.changed_bytes == (128 + 128 + 10) * FLOAT32


def test_int8_static_of_an_mlp_changes_the_biases_too() -> None:
    optimization = apply_to("mlp", "onnxruntime-int8-static")
    assert optimization.coverage.share == 1
    biases = [t for t in onnx.load_from_string(optimization.model.program).graph.initializer if "bias" in t.name]
    assert {tensor.data_type for tensor in biases if tensor.name.endswith("_quantized")} == {onnx.TensorProto.INT32}


def test_int8_dynamic_of_attention_reaches_what_torch_cannot_pack() -> None:
    coverage = apply_to("encoder", "onnxruntime-int8-dynamic").coverage
    width, feed_forward = 64, 128
    layer = 4 * width * width + 2 * width * feed_forward
    assert coverage.changed_bytes == (2 * layer + 16 * width + width * 5) * FLOAT32
    untouched = {layer.type for layer in coverage.layers if not layer.changed_bytes}
    assert untouched == {"LayerNorm"}


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
@pytest.mark.parametrize("recipe", ["dynamic", "static"])
def test_int8_leaves_recurrent_layers_and_says_so(recipe: str, kind: str, gates: int) -> None:
    optimization = apply_to(kind, f"onnxruntime-int8-{recipe}")
    biases = (96 + 5) if recipe == "static" else 0
    assert optimization.coverage.changed_bytes == (50 * 32 + 64 * 96 + 96 * 5 + biases) * FLOAT32
    assert changed(optimization)["recurrent"] == 0
    size = gates * (64 * (32 + 64) + 2 * 64) * FLOAT32 / 1024
    assert any(f"1 {kind.upper()} ({size:.3g} KiB) left in floating point" in note for note in optimization.notes)


def test_an_lstm_becomes_int8_where_it_is_asked_for() -> None:
    optimization = apply_to("lstm", "onnxruntime-int8-dynamic(lstm=true)")
    assert changed(optimization)["recurrent"] == 4 * 64 * (32 + 64) * FLOAT32
    assert not any("LSTM" in note for note in optimization.notes)
    model, inputs = make("lstm")
    assert relative_error(run(optimization.model, inputs), run(model, inputs)) < INT8_TOLERANCE


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norm as after training, which changes every number that it is folded into."""
    torch.manual_seed(1)
    for norm in [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]:
        nn.init.normal_(norm.weight, 1, 0.1)
        nn.init.normal_(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval()


def test_convolutions_with_folded_batch_norm_that_stay_in_float_do_not_count() -> None:
    model, inputs = make("cnn")
    original = run(with_statistics(model), inputs)
    optimization = apply("onnxruntime-int8-dynamic", model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < INT8_TOLERANCE
    assert optimization.coverage.changed_bytes == 64 * 10 * FLOAT32
    operators = {node.op_type for node in onnx.load_from_string(optimization.model.program).graph.node}
    assert "Conv" in operators
    assert not operators & {"BatchNormalization", "ConvInteger"}
    assert any("8 Conv2d (283 KiB) left in floating point: quantized as they come" in n for n in optimization.notes)


def test_convolutions_that_become_int8_count_without_their_biases() -> None:
    model, inputs = make("cnn")
    optimization = apply("onnxruntime-int8-dynamic(convolutions=true)", with_statistics(model), inputs)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = sum(module.weight.numel() for module in convolutions) + 64 * 10
    assert optimization.coverage.changed_bytes == weights * FLOAT32
    assert not any("Conv2d" in note for note in optimization.notes)


def test_int8_static_reaches_convolutions_and_what_is_folded_into_them() -> None:
    model, inputs = make("cnn")
    original = run(with_statistics(model), inputs)
    optimization = apply("onnxruntime-int8-static", model, inputs)
    assert optimization.coverage.share == 1
    assert relative_error(run(optimization.model, inputs), original) < INT8_TOLERANCE
    assert len(optimization.model.program) < 0.35 * optimization.coverage.weight_bytes


def test_a_weight_that_is_computed_from_others_counts_as_what_it_became() -> None:
    normed = parametrizations.weight_norm(nn.Conv1d(4, 8, 3)), parametrizations.weight_norm(nn.Linear(48, 8))
    model = nn.Sequential(normed[0], nn.Flatten(), normed[1], nn.BatchNorm1d(8))
    optimization = apply("onnxruntime-int8-dynamic", with_statistics(model), torch.randn(3, 4, 8))
    assert changed(optimization) == {"0": 0, "2": (48 * 8 + 8) * FLOAT32, "3": 0}  # its direction and its length


class Bag(nn.Module):
    """The mean of the embeddings of each row, by the layer that gathers and averages in one."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(100, 32, mode="mean")
        self.head = nn.Linear(32, 4)

    def forward(self, tokens: torch.Tensor) -> Any:
        return self.head(self.bag(tokens))


def normed(normalize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(normalize(nn.Linear(64, 256)), nn.ReLU(), nn.Linear(256, 4))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("recipe", ["onnxruntime-int8-dynamic", "onnxruntime-int8-static"])
@pytest.mark.parametrize(
    ("make_model", "inputs"),
    [
        (lambda: normed(nn.utils.weight_norm), torch.randn(8, 64, generator=torch.Generator().manual_seed(0))),
        (
            lambda: normed(nn.utils.parametrizations.weight_norm),
            torch.randn(8, 64, generator=torch.Generator().manual_seed(0)),
        ),
        (Bag, torch.arange(40).reshape(8, 5)),
    ],
    ids=["normed by a hook", "normed by a parametrization", "embedding bag"],
)
def test_what_shape_inference_fails_on_becomes_int8_all_the_same(
    make_model: Callable[[], nn.Module], inputs: torch.Tensor, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = make_model().eval()
    original = run(model, inputs)
    optimization = apply(recipe, model, inputs)
    assert relative_error(run(optimization.model, inputs), original) < INT8_TOLERANCE
    matrices = [layer for layer in optimization.coverage.layers if layer.weight_bytes > 200]
    assert len(matrices) == 2
    assert all(layer.changed_bytes for layer in matrices)
    assert any("symbolic shape inference fails on this model" in note for note in optimization.notes)
    assert capsys.readouterr() == ("", "")


def test_tied_weights_that_the_program_holds_twice_are_told_with_bytes() -> None:
    float_notes = apply_to("tied", "onnxruntime").notes
    shared = "1 Embedding (12.5 KiB), 1 Linear (12.5 KiB) share a weight, which the program holds 2 times, together"
    assert float_notes == (f"{shared} {2 * 50 * 64 * 4 / 1024:g} KiB",)
    assert f"{shared} {2 * 50 * 64 / 1024:g} KiB" in apply_to("tied", "onnxruntime-int8-dynamic").notes
    assert apply_to("shared", "onnxruntime").notes == ()


# --- int8 ------------------------------------------------------------------------------------------------------------


def weight_codes(variant: Any) -> list[numpy.ndarray[Any, Any]]:
    tensors = onnx.load_from_string(variant.program).graph.initializer
    return [onnx.numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]


@pytest.mark.parametrize("recipe", ["dynamic", "static"])
@pytest.mark.parametrize(
    ("reduce_range", "saturates", "bits", "note"),
    [
        ("auto", True, 7, "weights use 7 of their 8 bits: this CPU lacks VNNI"),
        ("auto", False, 8, "weights use all 8 bits"),
        ("on", False, 7, ""),
        ("off", True, 8, "its 16-bit sums saturate"),
        ("off", False, 8, ""),
    ],
)
def test_weights_take_the_bits_that_the_cpu_can_add(
    recipe: str, reduce_range: str, saturates: bool, bits: int, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_flags, "adds_in_16_bits", lambda: saturates)
    optimization = apply_to("mlp", f"onnxruntime-int8-{recipe}(reduce_range={reduce_range})")
    codes = weight_codes(optimization.model)
    assert len(codes) == 3
    largest = max(int(numpy.abs(code.astype(int)).max()) for code in codes)
    assert largest in ((63, 64) if bits == 7 else (127, 128))
    assert len(optimization.notes) == bool(note)
    assert note in " ".join(optimization.notes)


def test_the_cpu_is_known_as_the_kernel_lists_it() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    if "avx512_vnni" in flags or "avx_vnni" in flags:
        assert not cpu_flags.adds_in_16_bits()
    elif "avx2" in flags:
        assert cpu_flags.adds_in_16_bits()


def test_per_channel_keeps_layers_whose_channels_differ() -> None:
    """One output channel is a thousand times as large as the others: under one scale they would all be zero."""
    torch.manual_seed(0)
    model: Any
    model, inputs = nn.Sequential(nn.Linear(32, 16)).eval(), torch.randn(8, 32)
    with torch.no_grad():
        model[0].weight[0] *= 1000
        model[0].bias.zero_()
    original = run(model, inputs)[:, 1:]
    errors = {}
    for per_channel in ("true", "false"):
        variant = apply(f"onnxruntime-int8-dynamic(per_channel={per_channel})", model, inputs).model
        errors[per_channel] = relative_error(run(variant, inputs)[:, 1:], original)
    assert errors["true"] < INT8_TOLERANCE < errors["false"]


@pytest.mark.parametrize(("per_channel", "scales"), [("true", [10, 128, 128]), ("false", [1, 1, 1])])
def test_int8_static_has_one_scale_per_channel(per_channel: str, scales: list[int]) -> None:
    program = apply_to("mlp", f"onnxruntime-int8-static(per_channel={per_channel})").model.program
    tensors = onnx.load_from_string(program).graph.initializer
    found = [onnx.numpy_helper.to_array(tensor).size for tensor in tensors if tensor.name.endswith("weight_scale")]
    assert sorted(found) == scales


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_calibration_batches_may_differ_in_size(method: str) -> None:
    model, inputs = make("mlp")
    original = run(model, inputs)
    batches = [inputs, torch.randn(3, 64), torch.randn(1, 64), torch.randn(7, 64)]
    context = Context(inputs, lambda: iter(batches), seed=0)
    optimization = optimize(model, parse(f"onnxruntime-int8-static(method={method})").steps, context)
    assert relative_error(run(optimization.model, inputs), original) < INT8_TOLERANCE


def test_activations_are_scaled_by_the_calibration_and_not_by_the_examples() -> None:
    """Calibrated on a hundredth of the inputs, larger ones are cut off."""
    model, inputs = make("mlp")
    original = run(model, inputs)
    context = Context(inputs, lambda: iter([inputs / 100]), seed=0)
    optimization = optimize(model, parse("onnxruntime-int8-static(batches=1)").steps, context)
    assert relative_error(run(optimization.model, inputs), original) > 0.3


def test_infinite_masks_stay_in_float_and_are_told() -> None:
    notes = " | ".join(apply_to("masked encoder", "onnxruntime-int8-static").notes)
    assert "operators on infinite values, such as those of attention masks, left in floating point" in notes
    with pytest.raises(RecipeError, match=r"method=entropy can make no histogram: use method=minmax"):
        apply_to("masked encoder", "onnxruntime-int8-static(method=entropy)")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_int8_static_needs_calibration_data() -> None:
    model, inputs = make("mlp")
    (recipe,) = parse("onnxruntime-int8-static").steps
    with pytest.raises(RecipeError, match=r"^onnxruntime-int8-static needs calibration data: add `calibration: "):
        optimize(model, [recipe], Context(inputs, None, seed=0))
    with pytest.raises(RecipeError, match="the calibration gave no batch"):
        optimize(model, [recipe], Context(inputs, lambda: iter(()), seed=0))
    with pytest.raises(RecipeError, match=r"calibration batch 1: the converted model takes exactly the arguments"):
        optimize(model, [recipe], Context(inputs, lambda: iter([(inputs, inputs)]), seed=0))
    with pytest.raises(RecipeError, match=r"the model does not run on calibration batch 2: .*Got: 7 Expected: 64"):
        optimize(model, [recipe], Context(inputs, lambda: iter([inputs, torch.randn(4, 7)]), seed=0))


def test_fewer_calibration_batches_than_asked_for_are_told() -> None:
    notes = apply("onnxruntime-int8-static(batches=8)", *made("mlp"), batches=3).notes
    assert "calibrated with 3 of 8 batches: the calibration data holds no more" in notes


class ReturnsItsSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return self.layer(x), x.shape[0]


class Eigenvalues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.linalg.eigvalsh(self.layer(x).T @ x)


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (
            lambda: Counter(4),
            "Counter changes calls in each call, and a converted model keeps nothing from call to call",
        ),
        (ReturnsItsSize, "output 2 of 2 of ReturnsItsSize is a number that depends on the sizes of its inputs"),
        (Eigenvalues, "Eigenvalues cannot be converted to ONNX: DispatchError: No ONNX function found for .*eigh"),
        (lambda: nn.Linear(4, 4).double(), "needs float32 weights, and the model holds float64: call .float"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_words(make_model: Callable[[], nn.Module], message: str) -> None:
    model = make_model().eval()
    dtype = next(model.parameters()).dtype
    with pytest.raises(RecipeError, match=message):
        apply("onnxruntime", model, torch.randn(3, 4, dtype=dtype))


def test_more_than_one_file_can_hold_is_refused() -> None:
    model = nn.Linear(30_000, 20_000, device="meta")
    with pytest.raises(RecipeError, match=r"holds at most 2 GiB, and the model has 2\.24 GiB of weights; .*int8-dyn"):
        onnx_conversion.convert(model, Context(torch.zeros(1, 30_000), None, seed=0), "onnxruntime")


def test_convolutions_alone_are_nothing_for_int8_dynamic_and_the_way_out_is_told() -> None:
    with pytest.raises(RecipeDidNothing, match=r"1 Conv2d .* left in floating point: .*onnxruntime-int8-static makes"):
        apply("onnxruntime-int8-dynamic", nn.Sequential(nn.Conv2d(3, 8, 3)), torch.randn(2, 3, 8, 8))


def test_pruned_and_factorized_models_are_converted_and_nothing_follows() -> None:
    model, inputs = make("mlp")
    optimization = apply("low-rank + onnxruntime-int8-dynamic", model, inputs)
    assert [step.recipe for step in optimization.coverage.steps][1] == "onnxruntime-int8-dynamic"
    with pytest.raises(RecipeError, match=r"low-rank cannot follow onnxruntime: .*; write low-rank \+ onnxruntime"):
        parse("onnxruntime + low-rank")


def test_the_exporters_own_session_is_what_is_run() -> None:
    """The same program in a session that this test makes itself gives the variant's answers."""
    _, inputs = make("attention")
    variant = apply_to("attention", "onnxruntime").model
    session = InferenceSession(variant.program, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(call(variant, inputs), torch.from_numpy(answer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "kind", "keep", "whole"),
    [
        ("onnxruntime-int8-dynamic", "mlp", "2", {"0", "2", "4"}),
        ("onnxruntime-int8-static", "attention", "head,wide", {"embed", "qkv", "project", "wide", "narrow", "head"}),
    ],
)
def test_what_keep_names_stays_in_floating_point(recipe: str, kind: str, keep: str, whole: set[str]) -> None:
    require_kept(recipe, kind, keep, whole)


def test_a_convolution_with_its_batch_norm_stays_in_floating_point() -> None:
    optimization = apply("onnxruntime-int8-static(keep='block1.conv1,head')", *make("cnn"))
    kept = {layer.name for layer in optimization.coverage.layers if not layer.changed_bytes}
    assert {"block1.conv1", "head"} <= kept
    assert not kept & {"stem", "depthwise", "block1.conv2", "block2.conv1", "block2.conv2"}
