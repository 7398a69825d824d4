"""onnxruntime-int8-dynamic: int8 weights in ONNX Runtime, activations quantized as they come."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.optimizing.describe import modules_in_words, total_bytes
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_conversion import convert
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


class OnnxRuntimeInt8Dynamic(LayerRecipe):
    """Int8 weights for matrix products and embeddings in ONNX Runtime; activations are quantized call by call."""

    recipe_name: ClassVar[str] = "onnxruntime-int8-dynamic"
    summary: ClassVar[str] = "ONNX Runtime with int8 weights for Linear and Embedding; needs no calibration data"
    int8_products: ClassVar[bool] = True
    extra: ClassVar[str | None] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ONNX_RUNTIME_MODULES
    one_step: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    takes_files: ClassVar[tuple[str, ...]] = (".onnx",)
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

    per_channel: bool = Field(default=True, description="a scale for each output channel")
    lstm: bool = Field(default=False, description="quantize LSTM, too")
    convolutions: bool = Field(default=False, description="quantize convolutions, too: smaller, and slower")
    reduce_range: ReduceRange = Field(
        default="auto", description="7 bits, against saturation; auto: on x86 without VNNI"
    )

    def apply(self, model: nn.Module, context: Context) -> Applied:
        conversion = convert(model, context, self.recipe_name)
        is_reduced, notes = reduced_range(self.reduce_range)
        with held_folder() as folder:
            source, pre_notes = pre_processed(conversion, folder)
            program = self._quantized(source, is_reduced, conversion.nodes_of(source, context.kept))
        left = self._left_in_float(context.free(model.modules()))
        notes = (*pre_notes, *notes, *left, *conversion.tied_notes(program))
        return Applied(conversion.variant(program), notes)

    def _quantized(self, source: Path, is_reduced: bool, excluded: list[str]) -> Any:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        operators = ["MatMul", "Gather", *self.lstm * ["LSTM"], *self.convolutions * ["Conv"]]
        target = source.with_name("quantized.onnx")
        with unchanged_logging():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=operators,
                nodes_to_exclude=excluded,
                per_channel=self.per_channel,
                reduce_range=is_reduced,
                weight_type=QuantType.QInt8,
            )
        return onnx.load(target)

    def _left_in_float(self, modules: Iterable[nn.Module]) -> tuple[str, ...]:
        """Notes on the weights that are not quantized, by the reason."""
        from torch import nn

        reasons: dict[str, list[nn.Module]] = {}
        for module in modules:
            if not total_bytes(module):
                continue
            reason = ""
            if isinstance(module, nn.modules.conv._ConvTransposeNd):
                reason = "ONNX Runtime has no dynamically quantized form of them; onnxruntime-int8-static has"
            elif isinstance(module, nn.modules.conv._ConvNd) and not self.convolutions:
                reason = (
                    "quantized as they come, convolutions are slower on CPUs than in floating point "
                    "(convolutions=true quantizes them all the same, onnxruntime-int8-static makes them faster)"
                )
            elif isinstance(module, nn.LSTM) and not self.lstm:
                reason = "int8 often costs recurrent layers much accuracy; lstm=true quantizes them, and accuracy tells"
            elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and not isinstance(module, (nn.LSTM, nn.LSTMCell)):
                reason = "ONNX Runtime has no int8 form of them"
            if reason:
                reasons.setdefault(reason, []).append(module)
        return tuple(f"{modules_in_words(left)} left in floating point: {reason}" for reason, left in reasons.items())
