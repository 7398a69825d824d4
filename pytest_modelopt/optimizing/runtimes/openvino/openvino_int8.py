"""openvino-int8: int8 weights and activations by NNCF, run by OpenVINO."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.calibrating import (
    calibration_batches,
    does_not_run,
    fewer_batches,
    require_calibration,
)
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.describe import last_line, type_name, types_in_words
from pytest_modelopt.optimizing.keeping import parameter_names
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.runtimes.comparing import difference as relative_difference
from pytest_modelopt.optimizing.runtimes.exporting import arguments
from pytest_modelopt.optimizing.runtimes.folding import matrices_of
from pytest_modelopt.optimizing.runtimes.openvino import openvino_ir
from pytest_modelopt.optimizing.runtimes.openvino.openvino_weights import RECURRENT, Before, Kept

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import OpenVinoModule


class OpenVinoInt8(LayerRecipe):
    """Quantize with NNCF; scales come from `batches` calibration batches, and `weights_only` needs none.

    `preset` 'mixed' gives activations a zero point of their own, 'performance' does not; 'auto' leaves that to NNCF.
    `model` 'transformer' is NNCF's scheme for transformers, which moves the scale of activations into weights
    (SmoothQuant); it is no default, since there are models of which it makes something else: see the note. `recurrent`
    quantizes LSTM, too; it is no default, since the int8 LSTM of OpenVINO 2026.4 answers nonsense where its input is a
    quantized activation.
    """

    recipe_name: ClassVar[str] = "openvino-int8"
    summary: ClassVar[str] = "int8 weights and activations by NNCF, run in OpenVINO; needs calibration data"
    int8_products: ClassVar[bool] = True
    extra: ClassVar[str | None] = "openvino"
    requires: ClassVar[tuple[str, ...]] = ("openvino", "nncf")
    one_step: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    needs_calibration: ClassVar[bool] = True
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
    takes_files: ClassVar[tuple[str, ...]] = (".onnx", ".xml")
    gives: ClassVar[Form | None] = "runtime"

    batches: int = Field(default=4, ge=1, description="batches of calibration data")
    preset: Literal["auto", "performance", "mixed"] = Field(
        default="auto", description="of NNCF; mixed: asymmetric activations"
    )
    model: Literal["general", "transformer"] = Field(
        default="general", description="NNCF's model type; transformer: SmoothQuant"
    )
    recurrent: bool = Field(default=False, description="quantize LSTM, too, at the price of accuracy")
    weights_only: bool = Field(default=False, description="keep activations in floating point; no calibration data")
    precision: Literal["f32", "auto"] = Field(
        default="f32", description="of what stays in floating point; auto: bfloat16 where the processor has it"
    )

    @property
    def calibrates(self) -> bool:
        return not self.weights_only

    @property
    def multiplies_int8(self) -> bool:
        return not self.weights_only

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import OpenVinoModule, packed

        self._refuse_without_effect()
        if not self.weights_only:
            require_calibration(context, self.recipe_name, ", or write openvino-int8(weights_only=true)")
        converted = openvino_ir.convert(model, context, self.recipe_name)
        before = Before.of(converted.ir)
        ignored = before.operations_of(matrices_of(context.kept))
        notes: tuple[str, ...] = ()
        with openvino_ir.quiet():
            if self.weights_only:
                quantized = _compressed(converted.ir, ignored)
            else:
                single = OpenVinoModule(packed(converted.ir), converted.signature)
                quantized, notes = self._quantized(converted.ir, single, context, ignored)
        found = before.compared_with(quantized)
        kept = found.kept(model)
        told = kept.without(parameter_names(model, context.kept))
        if not found.integers:
            return Applied(model, (*notes, *self._kept_notes(model, told)))
        parameters = dict(model.named_parameters())
        tensors = tuple(parameters[name].detach() for name in (*kept.known, *kept.unknown))
        variant = OpenVinoModule(packed(quantized), converted.signature, self.precision, tensors)
        notes += (
            _difference_note(model, variant, context),
            *_recurrent_notes(found.recurrent),
            *self._kept_notes(model, told),
        )
        return Applied(variant, (*converted.notes, *notes, *openvino_ir.variant_notes(variant, model)))

    def _refuse_without_effect(self) -> None:
        fields = type(self).model_fields
        idle = [
            name for name in ("batches", "preset", "model", "recurrent") if getattr(self, name) != fields[name].default
        ]
        if self.weights_only and idle:
            raise RecipeError(
                f"{' and '.join(idle)} of openvino-int8 has no effect with weights_only, which quantizes neither "
                "activations nor recurrent layers: leave one of the two out"
            )

    def _quantized(
        self, ir: Any, variant: OpenVinoModule, context: Context, ignored: list[str]
    ) -> tuple[Any, tuple[str, ...]]:
        nncf = openvino_ir.load_nncf()
        items = self._calibration(variant, context)
        notes: tuple[str, ...] = ()
        advanced = nncf.AdvancedQuantizationParameters()
        if cpu_flags.adds_in_16_bits():
            advanced.overflow_fix = nncf.OverflowFix.ENABLE
            notes += (
                "weights use 7 of their 8 bits: this CPU lacks VNNI, and its 16-bit sums would saturate with all of "
                "them",
            )
        with openvino_ir.quiet_nncf():
            quantized = nncf.quantize(
                ir,
                nncf.Dataset(items),
                preset=None if self.preset == "auto" else nncf.QuantizationPreset(self.preset),
                model_type=nncf.ModelType.TRANSFORMER if self.model == "transformer" else None,
                subset_size=len(items),
                advanced_parameters=advanced,
                ignored_scope=nncf.IgnoredScope(
                    names=ignored, types=[] if self.recurrent else list(RECURRENT), validate=False
                ),
            )
        return quantized, notes + fewer_batches(len(items), self.batches)

    def _calibration(self, variant: OpenVinoModule, context: Context) -> list[list[Any]]:
        """The inputs of the calibration batches, on each of which the model is seen to run in float32."""
        items: list[list[Any]] = []
        for number, batch in calibration_batches(context, self.recipe_name, self.batches):
            try:
                call(variant, batch)
            except Exception as error:
                raise does_not_run(self.recipe_name, number, last_line(error)) from error
            args, kwargs = arguments(batch)
            items.append([tensor.detach().numpy() for tensor in variant.signature.flat_inputs(args, kwargs)])
        return items

    def _kept_notes(self, model: nn.Module, kept: Kept) -> tuple[str, ...]:
        """The layers whose matrices are still in float32; biases and norms always are."""
        from torch import nn

        without_lstm = nn.LSTM if not self.recurrent and not self.weights_only else ()
        lstm = [name for name in kept.known if isinstance(_owner(model, name), without_lstm)]
        notes = []
        if found := _matrices_in_words(model, lstm):
            notes.append(
                f"{found} left in floating point: OpenVINO's int8 LSTM can give answers that have nothing to do with "
                "those of the model (recurrent=true quantizes it nevertheless)"
            )
        if found := _matrices_in_words(model, [name for name in kept.known if name not in lstm]):
            notes.append(f"{found} left in floating point: NNCF does not quantize them")
        if found := _matrices_in_words(model, kept.unknown):
            notes.append(
                f"{found} left in floating point or without use: what OpenVINO made of them was not found among its "
                "constants"
            )
        return tuple(notes)


def _compressed(ir: Any, ignored: list[str]) -> Any:
    nncf = openvino_ir.load_nncf()
    with openvino_ir.quiet_nncf():
        return nncf.compress_weights(ir, ignored_scope=nncf.IgnoredScope(names=ignored, validate=False))


def _difference_note(model: nn.Module, variant: OpenVinoModule, context: Context) -> str:
    """What quantization did to the answers: a percent or two is usual, much more a warning before any score."""
    import torch

    with torch.no_grad():
        answer, original = (call(one, context.example_inputs) for one in (variant, model))
    difference = relative_difference(answer, original)
    return f"on the example inputs the outputs differ from the original's by {difference:.1%} of their largest number"


def _matrices_in_words(model: nn.Module, names: Iterable[str]) -> str:
    sizes: dict[nn.Module, int] = {}
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.dim() > 1:
            owner = _owner(model, name)
            sizes[owner] = sizes.get(owner, 0) + parameter.nbytes
    return types_in_words((type_name(owner), size) for owner, size in sizes.items())


def _owner(model: nn.Module, name: str) -> nn.Module:
    """The module that holds a parameter, as its author knows it."""
    owner, parametrized, _ = f".{name}".partition(".parametrizations.")
    return model.get_submodule((owner if parametrized else owner.rpartition(".")[0]).removeprefix("."))


def _recurrent_notes(kinds: frozenset[str]) -> tuple[str, ...]:
    if not kinds:
        return ()
    names = " and ".join(sorted(kinds))
    return (
        f"weights of {names} were quantized: OpenVINO's int8 {names} can give answers that have nothing to do with "
        "those of the model, so accuracy is the first thing to look at",
    )
