"""sparse-2:4: of every four weights in a row of a Linear two become zero, which newer NVIDIA GPUs skip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing.bisection import Replacing, in_words
from pytest_modelopt.optimizing.describe import modules_in_words
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe

if TYPE_CHECKING:
    import torch
    from torch import nn

CAPABILITY = (8, 0)
"""The first compute capability whose tensor cores skip such zeros (Ampere)."""

ROWS, COLUMNS = 32, 64
"""Sizes of which a weight must be a multiple, for both of torch's kernels (CUTLASS and cuSPARSELt) in 16 bits."""


class SemiStructuredSparsity(LayerRecipe):
    """Of every four neighboring weights of a row keep the two of largest magnitude, in torch's semi-structured form."""

    recipe_name: ClassVar[str] = "sparse-2:4"
    summary: ClassVar[str] = "two of four weights of each Linear become zero, which GPUs since Ampere skip"
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    changes: ClassVar[tuple[str, ...]] = ("Linear",)
    takes: ClassVar[tuple[Form, ...]] = ("float", "low precision")
    gives: ClassVar[Form | None] = "sparse"

    @classmethod
    def unfit(cls, device: str) -> str:
        reason = super().unfit(device)
        if reason:
            return (
                f"{reason}: only tensor cores skip zeros of this pattern; on the CPU, write "
                f"`prune-unstructured(ratio=0.9) + sparse-csr`"
            )
        import torch

        if not torch.cuda.is_available():
            return f"{cls.recipe_name} needs an NVIDIA GPU, and torch finds none"
        found = torch.cuda.get_device_capability()
        if found < CAPABILITY:
            return (
                f"{cls.recipe_name} needs an NVIDIA GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or more "
                f"(Ampere), and {torch.cuda.get_device_name()} has {found[0]}.{found[1]}"
            )
        return ""

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from torch import nn

        from pytest_modelopt.optimizing.pruning.semi_structured_linear_module import SemiStructuredLinear

        tied = tied_parameters(model)
        linear = context.free(module for module in model.modules() if isinstance(module, nn.Linear))
        own = own_behavior(model, context.example_inputs, context.free(of_classes(model, self.changes)))
        kept: dict[nn.Module, str] = {
            layer: reason for layer in linear if (reason := own.get(layer) or reason_to_keep(layer, tied))
        }

        def store(layer: Any) -> nn.Module:
            return SemiStructuredLinear(layer, two_of_four(layer.weight))

        replacing = Replacing(model, context.example_inputs, store)
        kept |= replacing.replace([(layer,) for layer in linear if layer not in kept])
        model = replacing.model
        notes = in_words(kept, modules_in_words, "left dense")
        if replacing.made:
            notes.insert(
                0,
                f"{modules_in_words(replacing.made)}: half of the weights became zero; without further training the "
                f"accuracy usually drops",
            )
        return Applied(model, (*notes, *turn_off_fused_path(model)), unlike_class=named(model, own))


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """The weight with zeros for the two of smallest magnitude of every four neighbors; among equals the first stay."""
    import torch

    fours = weight.detach().reshape(*weight.shape[:-1], -1, 4)
    largest = fours.abs().argsort(dim=-1, descending=True, stable=True)[..., :2]
    mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, largest, True)
    return fours.where(mask, 0).reshape(weight.shape)


def reason_to_keep(linear: nn.Linear, tied: set[int]) -> str:
    """Why this layer cannot take the form; '' where it can."""
    import torch
    from torch import nn

    weight = linear._parameters.get("weight")
    if type(linear) is not nn.Linear or weight is None:
        return "not exactly nn.Linear (a subclass or a part of MultiheadAttention)"
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return (
            f"the kernels take half precision, and they are {str(weight.dtype).removeprefix('torch.')}: call .half() "
            f"or .bfloat16() in the model's factory"
        )
    if id(weight) in tied or id(linear.bias) in tied:
        return "another module shares their weight"
    if weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return f"the kernels take outputs in multiples of {ROWS} and inputs in multiples of {COLUMNS}"
    return ""
