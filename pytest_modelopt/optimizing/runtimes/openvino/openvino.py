"""openvino: the model in float32, run by OpenVINO instead of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.recipe import Applied, Context, Form, Recipe
from pytest_modelopt.optimizing.runtimes.openvino import openvino_ir

if TYPE_CHECKING:
    from torch import nn

WHOLE_MODEL = frozenset({""})


class OpenVino(Recipe):
    """Run the whole model in OpenVINO. With `precision=auto` OpenVINO computes in bfloat16 on CPUs that have it."""

    recipe_name: ClassVar[str] = "openvino"
    summary: ClassVar[str] = "runs the model in OpenVINO instead of torch, in float32"
    extra: ClassVar[str | None] = "openvino"
    requires: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    one_step: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    takes: ClassVar[tuple[Form, ...]] = ("float",)
    takes_files: ClassVar[tuple[str, ...]] = (".onnx",)
    gives: ClassVar[Form | None] = "runtime"

    precision: Literal["f32", "auto"] = Field(default="f32", description="auto: bfloat16 where the processor has it")

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import OpenVinoModule, packed

        converted = openvino_ir.convert(model, context, self.recipe_name)
        variant = OpenVinoModule(packed(converted.ir), converted.signature, self.precision)
        notes = (*converted.notes, *openvino_ir.variant_notes(variant, model))
        return Applied(variant, notes, WHOLE_MODEL)
