"""low-rank: each Linear becomes two thinner ones, its truncated singular value decomposition."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pytest_modelopt.recipes.base import Applied, Context, Recipe
from pytest_modelopt.recipes.describe import owners_in_words, weight_owners
from pytest_modelopt.recipes.fused_path import turn_off_fused_path
from pytest_modelopt.recipes.sharing import replace_modules, tied_parameters

if TYPE_CHECKING:
    from torch import nn

SMALLEST_WEIGHT_COUNT = 4096
"""A Linear with fewer weights is left alone: there is nothing to gain, and heads of few classes lose much."""


class LowRank(Recipe):
    """Replace each Linear by two thinner ones that hold the share `ratio` of its weights.

    A weight W of out x in with the decomposition U S V^T becomes (U_r sqrt(S_r)) (sqrt(S_r) V_r^T), the nearest matrix
    of rank r in the Frobenius norm (Eckart and Young, 1936), with r = floor(ratio * out * in / (out + in)).
    """

    recipe_name: ClassVar[str] = "low-rank"
    summary: ClassVar[str] = "replaces each Linear by two thinner ones (truncated singular value decomposition)"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)

    ratio: float = Field(default=0.5, gt=0, lt=1)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        kept: dict[str, list[nn.Module]] = {}
        energies: list[float] = []
        tied = tied_parameters(model)

        def factorize(module: nn.Module) -> nn.Module | None:
            from torch import nn

            if not isinstance(module, nn.Linear):
                return None
            reason = self._reason_to_keep(module, tied)
            if reason:
                kept.setdefault(reason, []).append(module)
                return None
            pair, energy = _factorized(module, self._rank(module))
            energies.append(energy)
            return pair

        model = replace_modules(model, factorize)
        notes = [f"{owners_in_words(modules)} left as they are: {reason}" for reason, modules in kept.items()]
        if energies:
            notes.insert(0, _energy_note(energies))
        return Applied(model, (*notes, *_other_layers(model), *turn_off_fused_path(model)))

    def _rank(self, linear: nn.Linear) -> int:
        outputs, inputs = linear.weight.shape
        return int(self.ratio * outputs * inputs / (outputs + inputs))

    def _reason_to_keep(self, linear: nn.Linear, tied: set[int]) -> str:
        from torch import nn

        if type(linear) is not nn.Linear:
            return "not exactly nn.Linear (a subclass, a part of MultiheadAttention or parametrized)"
        if linear.weight.numel() < SMALLEST_WEIGHT_COUNT:
            return f"fewer than {SMALLEST_WEIGHT_COUNT} weights each"
        if id(linear.weight) in tied or id(linear.bias) in tied:
            return "another module shares their weight"
        if linear._forward_pre_hooks or linear._forward_hooks:
            return "they carry forward hooks, which would be lost"
        if not linear.weight.is_floating_point():
            return "their weights are not in floating point"
        if self._rank(linear) < 1:
            return f"a ratio of {self.ratio} leaves them no rank"
        return ""


def _factorized(linear: nn.Linear, rank: int) -> tuple[nn.Module, float]:
    """The pair of thinner layers, and the share of the squared singular values that they keep."""
    import torch
    from torch import nn

    weight = linear.weight
    left, singular, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    root = singular[:rank].sqrt()
    first = nn.Linear(linear.in_features, rank, bias=False, device=weight.device, dtype=weight.dtype)
    second = nn.Linear(
        rank, linear.out_features, bias=linear.bias is not None, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        first.weight.copy_(root[:, None] * right[:rank])
        second.weight.copy_(left[:, :rank] * root)
        if linear.bias is not None:
            second.bias.copy_(linear.bias)
    for layer in (first, second):
        layer.requires_grad_(weight.requires_grad)
    total = float(singular.square().sum())
    energy = float(singular[:rank].square().sum()) / total if total else 1.0
    return nn.Sequential(first, second), energy


def _energy_note(energies: list[float]) -> str:
    layers = "1 Linear was" if len(energies) == 1 else f"{len(energies)} Linear were"
    return (
        f"{layers} factorized; of the squared singular values the layers keep {min(energies):.1%} at the least and "
        f"{sum(energies) / len(energies):.1%} on average: little kept usually means that the accuracy needs training"
    )


def _other_layers(model: nn.Module) -> tuple[str, ...]:
    from torch import nn

    others = [
        module
        for _, module in weight_owners(model)
        if not isinstance(module, nn.Linear) and any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    return (f"{owners_in_words(others)} left as they are: low-rank factorizes Linear only",) if others else ()
