"""litert-int8: the model in LiteRT with int8 weights, by Google's quantizer; activations in one of three ways."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.calibrating import calibration_batches, fewer_batches, require_calibration
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.describe import last_line, owners_in_words, weight_owners
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, RecipeError
from pytest_modelopt.optimizing.runtimes.exporting import arguments
from pytest_modelopt.optimizing.runtimes.folding import is_made_of, left_in_float, matrices_of
from pytest_modelopt.optimizing.runtimes.litert.litert import CONVERTED, convert, quiet
from pytest_modelopt.optimizing.runtimes.litert.tflite import (
    MASKING,
    float_constants,
    operators_after_masks,
    operators_with,
)

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.optimizing.runtimes.litert.litert_module import LiteRT
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

BATCHES = 4
"""Calibration batches where the recipe says nothing else."""


class LitertInt8(LayerRecipe):
    """Int8 weights, one scale per output channel. Activations: `dynamic` quantizes them call by call, `static` with
    scales from `batches` calibration batches, `float` not at all (a smaller model, computed in float32)."""

    recipe_name: ClassVar[str] = "litert-int8"
    summary: ClassVar[str] = "runs the model in LiteRT with int8 weights; activations=static needs calibration data"
    int8_products: ClassVar[bool] = True
    extra: ClassVar[str | None] = "litert"
    requires: ClassVar[tuple[str, ...]] = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    one_step: ClassVar[bool] = True
    fixes_sizes: ClassVar[bool] = True
    imports_compiler: ClassVar[bool] = True
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    changes: ClassVar[tuple[str, ...]] = tuple(kind for kind in CONVERTED if kind != "Conv3d")
    takes: ClassVar[tuple[Form, ...]] = ("float",)
    takes_files: ClassVar[tuple[str, ...]] = (".tflite",)
    gives: ClassVar[Form | None] = "runtime"

    activations: Literal["dynamic", "static", "float"] = Field(
        default="dynamic", description="int8 with scales of each call, int8 with scales from calibration data, or float"
    )
    batches: int = Field(default=BATCHES, ge=1, description="batches of calibration data, for static")

    @property
    def calibrates(self) -> bool:
        return self.activations == "static"

    @property
    def multiplies_int8(self) -> bool:
        return self.activations != "float"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.optimizing.runtimes.litert.litert_module import LiteRT
        from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

        self._refuse_calibration(context)
        if isinstance(model, ProgramFile):
            return self._of_file(model, context)
        program, signature, notes = convert(model, context, self.recipe_name)
        with quiet():
            quantized, more = self._quantized(LiteRT(program, signature), context)
        parameters = [parameter.detach() for parameter in model.parameters()]
        kept = left_in_float(parameters, list(float_constants(program)), list(float_constants(quantized)))
        variant = LiteRT(quantized, signature, kept)
        return Applied(variant, (*notes, *more, *_left_note(model, variant, context)))

    def _of_file(self, model: ProgramFile, context: Context) -> Applied:
        from pytest_modelopt.optimizing.runtimes.litert.tflite_file_module import Quantized

        if self.activations == "static":
            raise RecipeError(
                "litert-int8: activations=static calibrates what litert_torch has converted, and not a .tflite file; "
                "activations=dynamic and activations=float take one"
            )
        with quiet():
            program, notes = self._quantized(Quantized(Path(model.file).read_bytes(), model.signature), context)
        return Applied(Quantized(program, model.signature), notes)

    def _refuse_calibration(self, context: Context) -> None:
        if self.activations == "static":
            require_calibration(context, "litert-int8(activations=static)", "; activations=dynamic needs none")
        elif self.batches != BATCHES:
            raise RecipeError(
                f"litert-int8: `batches` counts calibration batches, and activations={self.activations} is not "
                "calibrated: leave it out, or write activations=static"
            )

    def _quantized(self, converted: LiteRT, context: Context) -> tuple[bytes, tuple[str, ...]]:
        """The program in int8, and notes."""
        from ai_edge_quantizer import quantizer, recipe

        recipes = {
            "dynamic": recipe.dynamic_wi8_afp32,
            "static": recipe.static_wi8_ai8,
            "float": recipe.weight_only_wi8_afp32,
        }
        made = quantizer.Quantizer(converted.program, recipes[self.activations]())
        ranges: dict[str, Any] | None = None
        notes: tuple[str, ...] = ()
        if kept := matrices_of(context.kept):
            _leave(made, operators_with(converted.program, lambda constant: is_made_of(constant, kept)))
        if self.activations == "static":
            notes = _keep_masks_in_float(made, converted.program)
            ranges, seen = self._ranges(made, converted, context)
            notes += fewer_batches(seen, self.batches)
        with without_progress():
            result = made.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
        return bytes(result.quantized_model), notes

    def _ranges(self, made: Any, converted: LiteRT, context: Context) -> tuple[dict[str, Any], int]:
        """The smallest and largest number of each tensor over the calibration batches, and how many there were.

        The quantizer's own way, a moving average over the calls, would forget what only some batches show.
        """
        import torch
        from ai_edge_quantizer import calibrator, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        from pytest_modelopt.optimizing.runtimes.litert.litert_module import NAME

        batches = list(calibration_batches(context, self.recipe_name, self.batches))
        steps = [step for number, batch in batches for step in _steps(converted, batch, number)]
        manager = recipe_manager.RecipeManager()
        manager.load_quantization_recipe(made.get_quantization_recipe())
        meter = calibrator.Calibrator(
            converted.program, num_threads=torch.get_num_threads(), qsv_update_func=qsv_utils.min_max_update
        )
        with without_progress():
            meter.calibrate({NAME: steps}, manager)
        return dict(meter.get_model_qsvs()), len(batches)


def _steps(converted: LiteRT, batch: Inputs, number: int) -> Iterator[dict[str, Any]]:
    """The calls of the program that one calibration batch makes."""
    from pytest_modelopt.optimizing.runtimes.fixed_sizes_module import cut

    args, kwargs = arguments(batch)
    try:
        for part in cut(converted.signature.flat_inputs(args, kwargs), converted.engine.inputs, "LiteRT"):
            yield {f"args_{index}": tensor.contiguous().numpy() for index, tensor in enumerate(part)}
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"litert-int8: the program does not run on calibration batch {number}: {last_line(error)}"
        ) from error


def _keep_masks_in_float(made: Any, program: bytes) -> tuple[str, ...]:
    """Leave what comes in and goes out as it is, and the operators that work with a mask's huge numbers; notes."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    operation = qtyping.TFLOperationName
    for outer in (operation.INPUT, operation.OUTPUT):
        made.update_quantization_recipe(".*", outer, algorithm_key=AlgorithmName.NO_QUANTIZE)
    masked = operators_after_masks(program)
    _leave(made, masked)
    if not masked:
        return ()
    return (
        f"{len(masked)} operators left in floating point: they add a mask of {MASKING:,.0f} or more to small numbers, "
        "and int8 cannot hold both",
    )


def _leave(made: Any, operators: Iterable[str]) -> None:
    """Leave operators, by the names of their outputs, in floating point."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    for name in operators:
        made.update_quantization_recipe(
            f"^{re.escape(name)};*$",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Two of the quantizer's progress bars cannot be turned off, and they write to the standard error stream."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _left_note(model: nn.Module, variant: LiteRT, context: Context) -> tuple[str, ...]:
    same = {layer.name for layer in compare(snapshot(model), variant, source=model) if not layer.changed_bytes}
    left = [
        module
        for name, module in weight_owners(model)
        if name in same and module not in context.kept and any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    if not left:
        return ()
    return (f"{owners_in_words(left)} left in floating point: Google's quantizer has no int8 form of what they became",)
