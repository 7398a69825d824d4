"""onnxruntime-int8-dynamic and onnxruntime-int8-static: the model in ONNX Runtime, with int8 weights."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.recipes.base import Applied, Context, Form, Recipe, RecipeError
from pytest_modelopt.recipes.calling import Inputs
from pytest_modelopt.recipes.describe import last_line, owners_in_words, weight_owners
from pytest_modelopt.recipes.exporting import arguments
from pytest_modelopt.recipes.onnx_conversion import Conversion, convert
from pytest_modelopt.recipes.onnxruntime import ONNX_RUNTIME_MODULES

if TYPE_CHECKING:
    from torch import nn

ReduceRange = Literal["auto", "on", "off"]

KEPT_IN_FLOAT = {"Softmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization"}
"""ONNX Runtime has no int8 kernels of these on the CPU, or none that is faster: int8 would cost accuracy only."""


class OnnxRuntimeInt8Dynamic(Recipe):
    """Int8 weights for matrix products and embeddings in ONNX Runtime; activations are quantized call by call."""

    recipe_name: ClassVar[str] = "onnxruntime-int8-dynamic"
    summary: ClassVar[str] = "ONNX Runtime with int8 weights for Linear and Embedding; needs no calibration data"
    extra: ClassVar[str | None] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ONNX_RUNTIME_MODULES
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_example: ClassVar[bool] = True
    gives: ClassVar[Form | None] = "runtime"
    changes: ClassVar[tuple[str, ...]] = (
        "Linear",
        "Embedding",
        "MultiheadAttention",
        "LSTM",
        "Conv1d",
        "Conv2d",
        "Conv3d",
    )

    per_channel: bool = True
    lstm: bool = False
    convolutions: bool = False
    reduce_range: ReduceRange = "auto"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        conversion = convert(model, context, self.recipe_name)
        is_reduced, notes = _reduced_range(self.reduce_range)
        with tempfile.TemporaryDirectory(prefix="modelopt-onnx-") as folder:
            source, pre_notes = _pre_processed(conversion, Path(folder))
            program = self._quantized(source, is_reduced)
        notes = (*pre_notes, *notes, *self._left_in_float(model), *conversion.tied_note(program))
        return Applied(conversion.variant(program), notes)

    def _quantized(self, source: Path, is_reduced: bool) -> bytes:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        operators = ["MatMul", "Gather", *self.lstm * ["LSTM"], *self.convolutions * ["Conv"]]
        target = source.with_name("quantized.onnx")
        with _unchanged_logging():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=operators,
                per_channel=self.per_channel,
                reduce_range=is_reduced,
                weight_type=QuantType.QInt8,
            )
        return target.read_bytes()

    def _left_in_float(self, model: nn.Module) -> tuple[str, ...]:
        """Notes on the weights that are not quantized, by the reason."""
        from torch import nn

        reasons: dict[str, list[nn.Module]] = {}
        for _, module in weight_owners(model):
            reason = ""
            if isinstance(module, nn.modules.conv._ConvTransposeNd):
                reason = "ONNX Runtime has no dynamically quantized form of them; onnxruntime-int8-static has"
            elif isinstance(module, nn.modules.conv._ConvNd) and not self.convolutions:
                reason = (
                    "quantized as they come, convolutions are slower on CPUs than in floating point "
                    "(convolutions=true quantizes them all the same, onnxruntime-int8-static makes them faster)"
                )
            elif isinstance(module, nn.LSTM) and not self.lstm:
                reason = (
                    "int8 often costs recurrent layers much accuracy; lstm=true quantizes them, and accuracy tells"
                )
            elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and not isinstance(module, (nn.LSTM, nn.LSTMCell)):
                reason = "ONNX Runtime has no int8 form of them"
            if reason:
                reasons.setdefault(reason, []).append(module)
        return tuple(
            f"{owners_in_words(modules)} left in floating point: {reason}" for reason, modules in reasons.items()
        )


class OnnxRuntimeInt8Static(Recipe):
    """Int8 weights and activations in ONNX Runtime; scales come from `batches` calibration batches."""

    recipe_name: ClassVar[str] = "onnxruntime-int8-static"
    summary: ClassVar[str] = "ONNX Runtime with int8 weights and activations; needs calibration data"
    extra: ClassVar[str | None] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ONNX_RUNTIME_MODULES
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_calibration: ClassVar[bool] = True
    needs_example: ClassVar[bool] = True
    gives: ClassVar[Form | None] = "runtime"
    changes: ClassVar[tuple[str, ...]] = (
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
        "Linear",
        "Embedding",
        "MultiheadAttention",
    )

    batches: int = Field(default=4, ge=1)
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    reduce_range: ReduceRange = "auto"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        if context.calibration is None:
            raise RecipeError(
                f"{self.recipe_name} needs calibration data: add `calibration: package.module:function`"
            )
        conversion = convert(model, context, self.recipe_name)
        fed = self._fed(conversion, context.calibration())
        is_reduced, notes = _reduced_range(self.reduce_range)
        with tempfile.TemporaryDirectory(prefix="modelopt-onnx-") as folder:
            source, pre_notes = _pre_processed(conversion, Path(folder))
            program = self._quantized(source, fed, is_reduced)
        notes = (*pre_notes, *notes, *self._left_in_float(model), *conversion.tied_note(program))
        if len(fed) < self.batches:
            notes += (f"calibrated with {len(fed)} of {self.batches} batches: the calibration data holds no more",)
        return Applied(conversion.variant(program), notes)

    def _fed(self, conversion: Conversion, batches: Iterator[Inputs]) -> list[dict[str, Any]]:
        """The calibration batches as ONNX Runtime takes them."""
        fed = []
        for batch in itertools.islice(batches, self.batches):
            args, kwargs = arguments(batch)
            try:
                tensors = conversion.signature.flat_inputs(args, kwargs)
            except TypeError as error:
                raise RecipeError(f"{self.recipe_name}: calibration batch {len(fed) + 1}: {error}") from error
            arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
            fed.append(dict(zip(conversion.names, arrays, strict=True)))
        if not fed:
            raise RecipeError(f"{self.recipe_name} needs calibration data, and the calibration gave no batch")
        return fed

    def _quantized(self, source: Path, fed: list[dict[str, Any]], is_reduced: bool) -> bytes:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        target = source.with_name("quantized.onnx")
        reader = _reader(fed)
        with _unchanged_logging(), contextlib.redirect_stdout(io.StringIO()):  # no code of the user's runs in it
            try:
                quantize_static(
                    source,
                    target,
                    reader,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry} - KEPT_IN_FLOAT),
                    per_channel=self.per_channel,
                    reduce_range=is_reduced,
                    activation_type=QuantType.QUInt8,  # products of two activations have no fast kernel in QInt8
                    weight_type=QuantType.QInt8,
                    calibrate_method=methods[self.method],
                    # batch by batch: those of other sizes could not be put together, and all take much memory
                    extra_options={"CalibStridedMinMax": 1},
                )
            except Exception as error:
                raise RecipeError(
                    f"{self.recipe_name} failed after {reader.given} of {len(fed)} calibration batches were read: "
                    f"{last_line(error)}"
                ) from error
        return target.read_bytes()

    def _left_in_float(self, model: nn.Module) -> tuple[str, ...]:
        from torch import nn

        recurrent = [
            module for _, module in weight_owners(model) if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN))
        ]
        if not recurrent:
            return ()
        return (f"{owners_in_words(recurrent)} left in floating point: ONNX Runtime has no static int8 form of them",)


def _reader(fed: list[dict[str, Any]]) -> Any:
    """The batches as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.given = 0
            self._rest: list[dict[str, Any]] = []

        def __len__(self) -> int:
            return len(fed)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._rest = fed[start_index:end_index]

        def get_next(self) -> dict[str, Any] | None:
            if not self._rest:
                return None
            self.given += 1
            return self._rest.pop(0)

    return Reader()


def _pre_processed(conversion: Conversion, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The program with what is constant computed in advance and all shapes known: else much is left in float."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "pre-processed.onnx"
    with _unchanged_logging():
        try:
            quant_pre_process(conversion.proto, target)
        except Exception as error:
            quant_pre_process(conversion.proto, target, skip_symbolic_shape=True)
            return target, (
                "the shapes within the model could not all be inferred, and what has no known shape stays in floating "
                f"point: {last_line(error)}",
            )
    return target, ()


@contextlib.contextmanager
def _unchanged_logging() -> Iterator[None]:
    """ONNX Runtime's tools call `logging.info`, which gives the root logger a handler if it has none."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)


def _reduced_range(wanted: ReduceRange) -> tuple[bool, tuple[str, ...]]:
    """Whether weights take 7 of their 8 bits, and a note on why."""
    if wanted == "on":
        return True, ()
    saturates = _saturates()
    if wanted == "off":
        warning = "this CPU lacks VNNI: with all 8 bits of the weights its 16-bit sums saturate, which costs accuracy"
        return False, (warning,) if saturates else ()
    if saturates:
        return True, (
            "weights use 7 of their 8 bits: this CPU lacks VNNI, and its 16-bit sums would saturate with all of them "
            "(reduce_range=off uses 8)",
        )
    return False, (
        "weights use all 8 bits, which is safe on this CPU; on an x86 CPU without VNNI sums may saturate and the "
        "answers differ (reduce_range=on is safe on both)",
    )


def _saturates() -> bool:
    """Whether this CPU multiplies int8 with the instructions of x86 that add pairs of products in 16 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return True  # unknown: 7 bits are right everywhere
    return not words & {"avx512_vnni", "avx_vnni"}
