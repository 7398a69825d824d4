"""What the recipes bf16 and fp16 have in common: the cast of a model to 16 bits, and what stays in 32."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.describe import last_line, owners_in_words, type_name, user_line
from pytest_modelopt.optimizing.finite import lost_answers
from pytest_modelopt.optimizing.keeping import outermost
from pytest_modelopt.optimizing.modules.fused_path import fused_layers
from pytest_modelopt.optimizing.modules.shared_tensors import same_view
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn


class LowPrecisionRecipe(LayerRecipe):
    """Cast weights, buffers, inputs and the arithmetic to a 16-bit floating-point type, and outputs back."""

    changes: ClassVar[tuple[str, ...]] = (
        *("Linear", "Conv1d", "Conv2d", "Conv3d", "Embedding", "LSTM", "GRU", "MultiheadAttention", "LayerNorm"),
        "every other layer but BatchNorm",
    )
    gives: ClassVar[Form | None] = "low precision"
    dtype_name: ClassVar[str]
    """As torch names it."""
    cpu_needs: ClassVar[tuple[frozenset[str], ...]]
    """Sets of processor features, of which a CPU must have one to compute in this type and not emulate it."""
    overflow: ClassVar[str]
    """What to do where numbers do not fit the type."""

    @classmethod
    def unfit(cls, device: str) -> str:
        reason = super().unfit(device)
        if reason or device != "cpu" or cpu_flags.has_all_of_one(cls.cpu_needs):
            return reason
        name, flags = cpu_flags.name_and_flags()
        needs = " or ".join(" and ".join(sorted(flags)) for flags in cls.cpu_needs)
        if not flags:
            return (
                f"{cls.recipe_name} needs a CPU that computes in {cls.dtype_name} ({needs}), and the features of this "
                f"one cannot be read, since there is no {cpu_flags.CPUINFO}"
            )
        return (
            f"{cls.recipe_name} needs a CPU that computes in {cls.dtype_name} ({needs}), and {name} does not: torch "
            f"would emulate it, several times slower than float32; use int8-dynamic, or int8-weight-only for size"
        )

    def apply(self, model: nn.Module, context: Context) -> Applied:
        import torch

        from pytest_modelopt.optimizing.quantization.low_precision_module import (
            LowPrecision,
            keep_in_float32,
            tensors_of,
        )

        dtype: torch.dtype = getattr(torch, self.dtype_name)
        with torch.no_grad():
            before = tensors_of(call(model, context.example_inputs))
        wide = {module for module in model.modules() if _is_batch_norm(module)} | context.kept
        _refuse_unfit_numbers(model, dtype, self, wide)
        _cast(model, dtype, wide)
        for module in outermost(model, context.kept):
            keep_in_float32(module, dtype)
        for layer in context.free(fused_layers(model)):
            if not context.kept.isdisjoint(layer.modules()):
                vars(layer)["activation_relu_or_gelu"] = 0  # the fused kernel takes weights of one type
        variant = LowPrecision(model, dtype, tuple(tensor.dtype for tensor in before))
        self._refuse_broken(variant, before, context)
        return Applied(variant, (_cast_note(self.dtype_name), *_float32_notes(context.free(wide))))

    def _refuse_broken(self, variant: nn.Module, before: list[torch.Tensor], context: Context) -> None:
        """Run the example, and say in words what 16 bits broke."""
        import torch

        from pytest_modelopt.optimizing.quantization.low_precision_module import tensors_of

        try:
            with torch.no_grad():
                after = tensors_of(call(variant, context.example_inputs))
        except Exception as error:
            raise RecipeError(
                f"after {self.recipe_name} the model no longer runs on its example inputs{user_line(error)}: "
                f"{last_line(error)}; a forward pass that makes float32 tensors itself must make them in the dtype of "
                f"what it works with, as in `torch.zeros(..., dtype=x.dtype)`"
            ) from error
        if not any(old.shape == new.shape and lost_answers(old, new) for old, new in zip(before, after, strict=False)):
            return
        raise RecipeError(
            f"{self.recipe_name}: the outputs are infinite or NaN where the original's are not"
            f"{_first_overflow(variant, context)}; {self.overflow}"
        )


def _refuse_unfit_numbers(
    model: nn.Module, dtype: torch.dtype, recipe: LowPrecisionRecipe, wide: Collection[nn.Module]
) -> None:
    """Before anything is cast, so that the model is as it was where this raises."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        module = model.get_submodule(name.rpartition(".")[0])
        if _is_cast(tensor, module, wide) and _is_finite(tensor) and not _is_finite(tensor.to(dtype)):
            largest = float(tensor.detach().abs().max())
            raise RecipeError(
                f"{recipe.recipe_name} cannot hold {name}: its largest number is {largest:.3g}; {recipe.overflow}"
            )


def _cast(model: nn.Module, dtype: torch.dtype, wide: Collection[nn.Module]) -> None:
    """Cast in place all but `wide`, the same numbers once, so that ties stay."""
    done: dict[Hashable, torch.Tensor] = {}
    before: list[torch.Tensor] = []  # kept alive, so that no address is used twice
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None and _is_cast(parameter, module, wide):
                before.append(parameter.data)
                parameter.data = done.setdefault(same_view(parameter), parameter.data.to(dtype))
        for name, buffer in module._buffers.items():
            if buffer is not None and _is_cast(buffer, module, wide):
                before.append(buffer)
                module._buffers[name] = done.setdefault(same_view(buffer), buffer.to(dtype))


def _is_cast(tensor: torch.Tensor, module: nn.Module, wide: Collection[nn.Module]) -> bool:
    from pytest_modelopt.optimizing.quantization.low_precision_module import WIDE

    return tensor.dtype in WIDE and module not in wide


def _is_batch_norm(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _cast_note(dtype_name: str) -> str:
    return (
        f"every call casts inputs to {dtype_name} and outputs back to what the original returns; numbers that the "
        f"forward pass makes itself stay as it makes them"
    )


def _float32_notes(kept: list[nn.Module]) -> tuple[str, ...]:
    if not kept:
        return ()
    return (
        f"{owners_in_words(kept)} stay in float32, with their running statistics: a variance may not fit 16 bits, and "
        f"torch's batch norm works on 16-bit inputs with them",
    )


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _first_overflow(variant: nn.Module, context: Context) -> str:
    """' (first in encoder.fc, of type Linear)': the first module from whose finite inputs infinite outputs come."""
    import torch

    from pytest_modelopt.optimizing.quantization.low_precision_module import tensors_of

    names = {module: name.removeprefix("model.") for name, module in variant.named_modules()}
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if all(map(_is_finite, tensors_of(inputs))) and not all(map(_is_finite, tensors_of(output))):
            found.append(module)

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            call(variant, context.example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or found[0] in (variant, variant.model):
        return ""  # in what the model's own forward does between its layers
    return f" (first in {names[found[0]]}, of type {type_name(found[0])})"
