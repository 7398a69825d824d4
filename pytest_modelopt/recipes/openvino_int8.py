"""openvino-int8: int8 weights and activations by NNCF, run by OpenVINO."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.recipes import openvino_ir
from pytest_modelopt.recipes.base import Applied, Context, Form, Recipe, RecipeError
from pytest_modelopt.recipes.calling import call
from pytest_modelopt.recipes.describe import last_line, type_name, types_in_words
from pytest_modelopt.recipes.exporting import arguments
from pytest_modelopt.recipes.openvino_weights import Before, Kept

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.recipes.modules.openvino import OpenVinoModule

SAME_NUMBERS = {"Reshape", "Broadcast", "Squeeze", "Unsqueeze", "Transpose"}
"""Operations that a product of matrices is written with beside it."""


class OpenVinoInt8(Recipe):
    """Quantize with NNCF; scales come from `batches` calibration batches, and `weights_only` needs none.

    `model` says which of NNCF's schemes to use: 'transformer' smooths activations before attention; 'auto' uses that
    where the model holds attention. `preset` 'mixed' gives activations a zero point of their own, 'performance' does
    not; 'auto' leaves that to NNCF.
    """

    recipe_name: ClassVar[str] = "openvino-int8"
    summary: ClassVar[str] = "int8 weights and activations by NNCF, run in OpenVINO; needs calibration data"
    extra: ClassVar[str | None] = "openvino"
    requires: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_calibration: ClassVar[bool] = True
    needs_example: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = (
        "Linear",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
        "MultiheadAttention",
        "Embedding",
        "LSTM",
    )
    takes: ClassVar[tuple[Form, ...]] = ("float",)
    gives: ClassVar[Form | None] = "runtime"

    batches: int = Field(default=4, ge=1)
    preset: Literal["auto", "performance", "mixed"] = "auto"
    model: Literal["auto", "general", "transformer"] = "auto"
    weights_only: bool = False
    precision: Literal["f32", "auto"] = "f32"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.recipes.modules.openvino import OpenVinoModule, packed

        self._refuse_without_effect()
        if context.calibration is None and not self.weights_only:
            raise RecipeError(
                "openvino-int8 needs calibration data: add `calibration: package.module:function`, or write "
                "openvino-int8(weights_only=true)"
            )
        converted = openvino_ir.convert(model, context, self.recipe_name)
        before = Before.of(converted.ir)
        notes: tuple[str, ...] = ()
        with openvino_ir.quiet():
            if self.weights_only:
                quantized = _compressed(converted.ir)
            else:
                single = OpenVinoModule(packed(converted.ir), converted.signature)
                quantized, notes = self._quantized(converted.ir, single, context)
        found = before.compared_with(quantized)
        kept = found.kept(model)
        parameters = dict(model.named_parameters())
        tensors = tuple(parameters[name].detach() for name in (*kept.known, *kept.unknown))
        variant = OpenVinoModule(packed(quantized), converted.signature, self.precision, tensors)
        notes += (*_kept_notes(model, kept), *_recurrent_notes(found.recurrent))
        return Applied(variant, (*converted.notes, *notes, *openvino_ir.variant_notes(variant, model)))

    def _refuse_without_effect(self) -> None:
        fields = type(self).model_fields
        idle = [name for name in ("batches", "preset", "model") if getattr(self, name) != fields[name].default]
        if self.weights_only and idle:
            raise RecipeError(
                f"{' and '.join(idle)} of openvino-int8 says how to calibrate, and weights_only needs no calibration: "
                "leave one of the two out"
            )

    def _quantized(self, ir: Any, variant: OpenVinoModule, context: Context) -> tuple[Any, tuple[str, ...]]:
        nncf = openvino_ir.load_nncf()
        items = self._calibration(variant, context)
        transformer = self.model == "transformer" or (self.model == "auto" and _has_attention(ir))
        with openvino_ir.quiet_nncf():
            quantized = nncf.quantize(
                ir,
                nncf.Dataset(items),
                preset=None if self.preset == "auto" else nncf.QuantizationPreset(self.preset),
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                subset_size=len(items),
            )
        notes = []
        if len(items) < self.batches:
            notes.append(f"calibrated with {len(items)} of {self.batches} batches: the calibration data holds no more")
        if transformer and self.model == "auto":
            notes.append("the model holds attention, so NNCF quantized it by its scheme for transformers")
        return quantized, tuple(notes)

    def _calibration(self, variant: OpenVinoModule, context: Context) -> list[list[Any]]:
        """The inputs of the calibration batches, on each of which the model is seen to run in float32."""
        assert context.calibration is not None
        items: list[list[Any]] = []
        for batch in itertools.islice(context.calibration(), self.batches):
            try:
                call(variant, batch)
            except Exception as error:
                raise RecipeError(
                    f"openvino-int8: the model does not run on calibration batch {len(items) + 1}: {last_line(error)}"
                ) from error
            args, kwargs = arguments(batch)
            items.append([tensor.detach().numpy() for tensor in variant.signature.flat_inputs(args, kwargs)])
        if not items:
            raise RecipeError("openvino-int8 needs calibration data, and the calibration gave no batch")
        return items


def _compressed(ir: Any) -> Any:
    nncf = openvino_ir.load_nncf()
    with openvino_ir.quiet_nncf():
        return nncf.compress_weights(ir)


def _has_attention(ir: Any) -> bool:
    """Whether a product of matrices takes what a softmax gave, in one operation or in several."""
    operations = ir.get_ordered_ops()
    if any(operation.get_type_name() == "ScaledDotProductAttention" for operation in operations):
        return True
    after = [operation for operation in operations if operation.get_type_name() == "Softmax"]
    for operation in after:  # which grows meanwhile
        users = [port.get_node() for port in operation.output(0).get_target_inputs()]
        if any(user.get_type_name() == "MatMul" for user in users):
            return True
        after += [user for user in users if user.get_type_name() in SAME_NUMBERS]
    return False


def _kept_notes(model: nn.Module, kept: Kept) -> tuple[str, ...]:
    """The layers whose matrices are still in float32; biases and norms always are."""
    notes = []
    if known := _matrices_in_words(model, kept.known):
        notes.append(f"{known} left in floating point: NNCF does not quantize them")
    if unknown := _matrices_in_words(model, kept.unknown):
        notes.append(
            f"{unknown} were not found again in what OpenVINO made of the model: they are counted as left in floating "
            "point"
        )
    return tuple(notes)


def _matrices_in_words(model: nn.Module, names: tuple[str, ...]) -> str:
    sizes: dict[str, int] = {}
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.dim() > 1:
            owner = name.rpartition(".")[0]
            sizes[owner] = sizes.get(owner, 0) + parameter.nbytes
    return types_in_words((type_name(model.get_submodule(owner)), size) for owner, size in sizes.items())


def _recurrent_notes(kinds: frozenset[str]) -> tuple[str, ...]:
    if not kinds:
        return ()
    return (
        f"weights of {' and '.join(sorted(kinds))} were quantized: each time step adds its error, so accuracy is the "
        "first thing to look at",
    )
