"""onnxruntime: the same model in floating point, run by ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_modelopt.optimizing.recipe import Applied, Context, Form, Recipe
from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_conversion import convert

if TYPE_CHECKING:
    from torch import nn

ONNX_RUNTIME_MODULES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `onnxruntime` brings."""


class OnnxRuntime(Recipe):
    """Convert the model to ONNX and run it in ONNX Runtime on the CPU, in floating point."""

    recipe_name: ClassVar[str] = "onnxruntime"
    summary: ClassVar[str] = "runs the model in ONNX Runtime, in floating point"
    takes_exported: ClassVar[bool] = True
    extra: ClassVar[str | None] = "onnxruntime"
    requires: ClassVar[tuple[str, ...]] = ONNX_RUNTIME_MODULES
    one_step: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    gives: ClassVar[Form | None] = "runtime"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        conversion = convert(model, context, self.recipe_name)
        notes = conversion.tied_notes(conversion.proto)
        return Applied(conversion.variant(conversion.proto), notes, reached=frozenset({""}))
