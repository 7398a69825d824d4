"""sparse-csr: Linear layers that were pruned to many zeros are stored and multiplied as sparse matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.optimizing.bisection import Replacing, in_words
from pytest_modelopt.optimizing.describe import modules_in_words, owners_in_words, weight_owners
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

SMALLEST_WEIGHT_COUNT = 256 * 256
"""Below it torch's CSR kernel gains nothing over the dense one, however many zeros there are: measured on one core of
an x86 CPU with AVX-512 and MKL, with 8 rows and more."""

INDEX_BYTES = 4


class SparseCSR(LayerRecipe):
    """Store each Linear of which at least the share `min_zeros` is zero in compressed sparse rows (CSR), and run it so.

    On one core of an x86 CPU with AVX-512, the kernel of torch 2.13 breaks even with the dense one at about 80% zeros
    for 8 rows or more (a row is one example or one token), and only at 90% to 95% for a single row.
    """

    recipe_name: ClassVar[str] = "sparse-csr"
    summary: ClassVar[str] = "stores and runs pruned Linear layers as sparse matrices; after prune-unstructured"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)
    gives: ClassVar[Form | None] = "sparse"

    min_zeros: float = Field(default=0.8, gt=0, lt=1, description="layers with a smaller share of zeros stay dense")

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from torch import nn

        from pytest_modelopt.optimizing.pruning.csr_linear_module import CSRLinear

        tied = tied_parameters(model)
        linear = context.free(module for module in model.modules() if isinstance(module, nn.Linear))
        own = own_behavior(model, context.example_inputs, context.free(of_classes(model, self.changes)))
        kept: dict[nn.Module, str] = {
            layer: reason for layer in linear if (reason := own.get(layer) or self._reason_to_keep(layer, tied))
        }

        def store(layer: Any) -> nn.Module:
            return CSRLinear(layer)

        replacing = Replacing(model, context.example_inputs, store)
        kept |= replacing.replace([(layer,) for layer in linear if layer not in kept])
        model = replacing.model
        notes = in_words(kept, modules_in_words, "left dense")
        if replacing.made:
            notes.insert(0, _stored_note(replacing.made))
        notes += (*_other_layers(model), *turn_off_fused_path(model))
        return Applied(model, tuple(notes), unlike_class=named(model, own))

    def _reason_to_keep(self, linear: nn.Linear, tied: set[int]) -> str:
        import torch
        from torch import nn

        weight = linear._parameters.get("weight")
        if type(linear) is not nn.Linear or weight is None:
            return "not exactly nn.Linear (a subclass or a part of MultiheadAttention)"
        if weight.dtype not in (torch.float32, torch.float64):
            return f"the kernel takes float32 and float64, and they are {str(weight.dtype).removeprefix('torch.')}"
        if id(weight) in tied or id(linear.bias) in tied:
            return "another module shares their weight"
        if weight.numel() < SMALLEST_WEIGHT_COUNT:
            return f"fewer than {SMALLEST_WEIGHT_COUNT:,} weights each, where the sparse kernel gains nothing"
        numbers = int(weight.count_nonzero())
        if weight.numel() - numbers < self.min_zeros * weight.numel():
            return (
                f"less than {self.min_zeros:.0%} of their weights are zero; write "
                f"`prune-unstructured(ratio=0.9) + sparse-csr` to prune them first"
            )
        if numbers * (weight.element_size() + INDEX_BYTES) + (len(weight) + 1) * INDEX_BYTES >= weight.nbytes:
            return "with its indices, the sparse form would be no smaller"
        return ""


def _stored_note(made: Mapping[Any, Any]) -> str:
    """`made` holds the sparse form of each layer."""
    weights = sum(layer.weight.numel() for layer in made)
    zeros = weights - sum(len(new.values) for new in made.values())
    dense = format_bytes(sum(layer.weight.nbytes for layer in made))
    stored = format_bytes(sum(buffer.nbytes for new in made.values() for buffer in new.buffers()))
    return (
        f"{len(made)} Linear with {zeros / weights:.1%} zeros are stored as sparse matrices, {dense} of weights as "
        f"{stored}; the kernel gains with 8 rows or more in a call, with a single row it needs 90% zeros or more"
    )


def _other_layers(model: nn.Module) -> tuple[str, ...]:
    from torch import nn

    from pytest_modelopt.optimizing.pruning.csr_linear_module import CSRLinear

    others = [
        module
        for _, module in weight_owners(model)
        if not isinstance(module, (nn.Linear, CSRLinear)) and any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    return (f"{owners_in_words(others)} left dense: sparse-csr has a kernel for Linear only",) if others else ()
