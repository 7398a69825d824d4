"""onnxruntime-int8-static: int8 weights and activations in ONNX Runtime, with scales taken from calibration data."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.calibrating import (
    calibration_batches,
    does_not_run,
    fewer_batches,
    require_calibration,
)
from pytest_modelopt.optimizing.describe import modules_in_words
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import arguments
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_conversion import Conversion, convert, in_one_line
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_quantization import (
    ReduceRange,
    pre_processed,
    reduced_range,
    unchanged_logging,
)
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnxruntime import ONNX_RUNTIME_MODULES
from pytest_modelopt.results.files.locked_folders import held_folder

if TYPE_CHECKING:
    from torch import nn

KEPT_IN_FLOAT = {"Softmax", "LayerNormalization", "InstanceNormalization", "BatchNormalization"}
"""ONNX Runtime has no int8 kernels of these on the CPU, or none that is faster: int8 would cost accuracy only."""

KNOWN_WARNINGS = (r"invalid value encountered in (scalar )?(cast|divide|subtract)",)
"""What numpy says of the scales of infinite values, which are not used: see `_unbounded_nodes`."""

BATCHES_AT_ONCE = 1
"""Calibration keeps all activations of that many batches; and batches of other sizes could not be put together."""


class OnnxRuntimeInt8Static(LayerRecipe):
    """Int8 weights and activations in ONNX Runtime; scales come from `batches` calibration batches."""

    recipe_name: ClassVar[str] = "onnxruntime-int8-static"
    summary: ClassVar[str] = "ONNX Runtime with int8 weights and activations; needs calibration data"
    int8_products: ClassVar[bool] = True
    extra: ClassVar[str | None] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ONNX_RUNTIME_MODULES
    one_step: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_calibration: ClassVar[bool] = True
    takes_files: ClassVar[tuple[str, ...]] = (".onnx",)
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

    batches: int = Field(default=4, ge=1, description="batches of calibration data")
    method: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="how ranges come from calibration data"
    )
    per_channel: bool = Field(default=True, description="a scale for each output channel")
    reduce_range: ReduceRange = Field(
        default="auto", description="7 bits, against saturation; auto: on x86 without VNNI"
    )

    def apply(self, model: nn.Module, context: Context) -> Applied:
        require_calibration(context, self.recipe_name)
        conversion = convert(model, context, self.recipe_name)
        fed = self._fed(conversion, context)
        is_reduced, notes = reduced_range(self.reduce_range)
        with held_folder() as folder:
            source, pre_notes = pre_processed(conversion, folder)
            kept = conversion.nodes_of(source, context.kept)
            program, float_notes = self._quantized(source, fed, is_reduced, kept)
        left = self._left_in_float(context.free(model.modules()))
        notes = (*pre_notes, *notes, *float_notes, *left, *conversion.tied_notes(program))
        return Applied(conversion.variant(program), notes + fewer_batches(len(fed), self.batches))

    def _fed(self, conversion: Conversion, context: Context) -> list[dict[str, Any]]:
        """The calibration batches as ONNX Runtime takes them."""
        fed: list[dict[str, Any]] = []
        for number, batch in calibration_batches(context, self.recipe_name, self.batches):
            args, kwargs = arguments(batch)
            try:
                tensors = conversion.signature.flat_inputs(args, kwargs)
            except TypeError as error:
                raise RecipeError(f"{self.recipe_name}: calibration batch {number}: {error}") from error
            arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
            fed.append(dict(zip(conversion.names, arrays, strict=True)))
        return fed

    def _quantized(
        self, source: Path, fed: list[dict[str, Any]], is_reduced: bool, excluded: list[str]
    ) -> tuple[Any, tuple[str, ...]]:
        """The program with int8 weights and activations, and notes on what stayed in float."""
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        target = source.with_name("quantized.onnx")
        reader = _reader(fed)
        with unchanged_logging(), _quiet_calibration():
            unbounded = self._unbounded_nodes(source, reader)
            quantize_static(
                source,
                target,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_operators(),
                nodes_to_exclude=[*unbounded, *excluded],
                per_channel=self.per_channel,
                reduce_range=is_reduced,
                activation_type=QuantType.QUInt8,  # products of two activations have no fast kernel in QInt8
                weight_type=QuantType.QInt8,
                calibrate_method=methods[self.method],
                extra_options={"CalibStridedMinMax": BATCHES_AT_ONCE},
            )
        program = onnx.load(target)
        unscaled = [tensor.name for tensor in program.graph.initializer if _is_scale(tensor) and not _is_finite(tensor)]
        if unscaled:
            raise RecipeError(f"{self.recipe_name} found no finite scale for {', '.join(unscaled)}")
        if not unbounded:
            return program, ()
        return program, (
            f"{len(unbounded)} operators on infinite values, such as those of attention masks, left in floating point: "
            f"no int8 scale fits them",
        )

    def _unbounded_nodes(self, source: Path, reader: Any) -> list[str]:
        """Names of the operators with an input or output that is infinite in some batch: so would be its scale."""
        import onnx
        from onnxruntime.quantization.calibrate import create_calibrator

        augmented = str(source.with_name("augmented.onnx"))
        calibrator = create_calibrator(source, _operators(), augmented_model_path=augmented)
        for start in range(0, len(reader), BATCHES_AT_ONCE):
            reader.set_range(start, start + BATCHES_AT_ONCE)
            try:
                calibrator.collect_data(reader)
            except Exception as error:
                raise does_not_run(self.recipe_name, start + 1, in_one_line(error)) from error
        ranges = calibrator.compute_data()
        graph = onnx.load(source).graph
        infinite = {name for name, data in ranges.items() if not _is_finite(data.range_value)}
        infinite |= {tensor.name for tensor in graph.initializer if not _is_finite(tensor)}
        nodes = [node.name for node in graph.node if infinite & {*node.input, *node.output}]
        if nodes and self.method != "minmax":
            raise RecipeError(
                f"{self.recipe_name}: {len(nodes)} operators work with infinite values, such as those of attention "
                f"masks, of which method={self.method} can make no histogram: use method=minmax"
            )
        return nodes

    def _left_in_float(self, modules: Iterable[nn.Module]) -> tuple[str, ...]:
        from torch import nn

        recurrent = [module for module in modules if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN))]
        if not recurrent:
            return ()
        return (f"{modules_in_words(recurrent)} left in floating point: ONNX Runtime has no static int8 form of them",)


def _operators() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry} - KEPT_IN_FLOAT)


def _is_scale(tensor: Any) -> bool:
    return bool(tensor.name.endswith("_scale"))


def _is_finite(numbers: Any) -> bool:
    import numpy
    import onnx

    array = onnx.numpy_helper.to_array(numbers) if isinstance(numbers, onnx.TensorProto) else numbers
    return not numpy.issubdtype(numpy.asarray(array).dtype, numpy.floating) or bool(numpy.isfinite(array).all())


@contextlib.contextmanager
def _quiet_calibration() -> Iterator[None]:
    """ONNX Runtime prints its progress, and computes scales also for the operators that are left in floating point.

    No code of the user's runs meanwhile.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=RuntimeWarning)
        yield


def _reader(fed: list[dict[str, Any]]) -> Any:
    """The batches as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: list[dict[str, Any]] = []

        def __len__(self) -> int:
            return len(fed)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._rest = fed[start_index:end_index]

        def get_next(self) -> dict[str, Any] | None:
            return self._rest.pop(0) if self._rest else None

    return Reader()
