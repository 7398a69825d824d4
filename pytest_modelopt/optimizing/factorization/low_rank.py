"""low-rank: each Linear becomes two thinner ones, its truncated singular value decomposition."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from pytest_modelopt.optimizing.bisection import Replacing, in_words
from pytest_modelopt.optimizing.describe import modules_in_words, owners_in_words, weight_owners
from pytest_modelopt.optimizing.finetuning import Finetune, finetune
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.recipe import Applied, Context, LayerRecipe, RecipeError
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

SMALLEST_WEIGHT_COUNT = 4096
"""A Linear with fewer weights is left alone: there is nothing to gain, and heads of few classes lose much."""

DEFAULT_RATIO = 0.5
RANK_FROM = ("ratio", "energy", "bytes")


class LowRank(LayerRecipe):
    """Replace each Linear by two thinner ones, whose rank r follows from exactly one of three parameters.

    A weight W of out x in with the decomposition U S V^T becomes (U_r sqrt(S_r)) (sqrt(S_r) V_r^T), the nearest matrix
    of rank r in the Frobenius norm (Eckart and Young, 1936).

    `ratio`: the two hold this share of the layer's weights, r = floor(ratio * out * in / (out + in)).
    `energy`: the smallest rank that keeps this share of the layer's squared singular values.
    `bytes`: all factorized layers together, biases included, take at most so many bytes; each next rank goes to the
    layer where it keeps the largest share of the layer's squared singular values per byte.
    `finetune` names a function that trains the model with the thinner layers.
    """

    recipe_name: ClassVar[str] = "low-rank"
    summary: ClassVar[str] = "replaces each Linear by two thinner ones (truncated singular value decomposition)"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)

    ratio: float | None = Field(default=DEFAULT_RATIO, gt=0, lt=1, description="share of the weights that stays")
    energy: float | None = Field(
        default=None, gt=0, lt=1, description="instead: share of the squared singular values that each layer keeps"
    )
    bytes: int | None = Field(default=None, ge=1, description="instead: of all factorized layers together")
    finetune: Finetune = ""

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, values: Any) -> Any:
        given = [f"{name}={value}" for name, value in values.items() if name in RANK_FROM and value is not None]
        if len(given) > 1:
            raise ValueError(f"the rank follows from one of ratio, energy and bytes; keep one of {', '.join(given)}")
        return values if given and "ratio" in values else {"ratio": None if given else DEFAULT_RATIO, **values}

    @property
    def calibrates(self) -> bool:
        return bool(self.finetune)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from torch import nn

        linear = context.free(module for module in model.modules() if isinstance(module, nn.Linear))
        tied = tied_parameters(model)
        own = own_behavior(model, context.example_inputs, context.free(of_classes(model, self.changes)))
        kept: dict[nn.Module, str] = {
            layer: reason for layer in linear if (reason := own.get(layer) or _reason_to_keep(layer, tied))
        }
        layers = [layer for layer in linear if layer not in kept]
        chosen: dict[nn.Module, int] = {}
        for layer, rank in zip(layers, self._ranks(layers), strict=True):
            if reason := self._reason_against_rank(layer, rank):
                kept[layer] = reason
            else:
                chosen[layer] = rank
        energies: dict[nn.Module, float] = {}

        def factorize(layer: Any) -> nn.Module:
            pair, energies[layer] = _factorized(layer, chosen[layer])
            return pair

        replacing = Replacing(model, context.example_inputs, factorize)
        kept |= replacing.replace([(layer,) for layer in chosen])
        model = replacing.model
        notes = in_words(kept, modules_in_words, "left as they are")
        if replacing.made:
            kept_energies = [energies[layer] for layer in replacing.made]
            notes.insert(0, _energy_note(kept_energies, list(replacing.made.values()), self.bytes))
        notes += (*_other_layers(model), *turn_off_fused_path(model))
        if replacing.made and self.finetune:
            model, note = finetune(model, self.recipe_name, self.finetune, context)
            notes.append(note)
        return Applied(model, tuple(notes), unlike_class=named(model, own))

    def _ranks(self, layers: Sequence[nn.Linear]) -> list[int]:
        if self.bytes is not None:
            return ranks_within(self.bytes, [_spectrum(layer) for layer in layers]) if layers else []
        if self.energy is not None:
            return [_spectrum(layer).rank_for(self.energy) for layer in layers]
        assert self.ratio is not None
        return [int(self.ratio * layer.weight.numel() / sum(layer.weight.shape)) for layer in layers]

    def _reason_against_rank(self, linear: nn.Linear, rank: int) -> str:
        if rank < 1:
            return f"a ratio of {self.ratio} leaves them no rank"
        if rank * sum(linear.weight.shape) >= linear.weight.numel():
            return f"two layers that keep {self.energy:.1%} of their squared singular values would be no smaller"
        return ""


@dataclass(frozen=True)
class Spectrum:
    """The squared singular values of a layer, the largest first, each as its share of their sum, and sizes in bytes."""

    shares: list[float]
    bytes_per_rank: int
    bias_bytes: int
    largest_rank: int
    """Above it the two layers would hold as many weights as the one."""

    def rank_for(self, energy: float) -> int:
        """The smallest rank that keeps this share."""
        kept = 0.0
        for rank, share in enumerate(self.shares, 1):
            kept += share
            if kept >= energy:
                return rank
        return len(self.shares)


def ranks_within(budget: int, spectra: Sequence[Spectrum]) -> list[int]:
    """A rank of at least 1 for each layer, so that all of them take at most `budget` bytes, greedily by share per byte.

    Raises:
        RecipeError: if the budget does not hold one rank for each.
    """
    ranks = [1 for _ in spectra]
    least = sum(spectrum.bytes_per_rank + spectrum.bias_bytes for spectrum in spectra)
    if least > budget:
        raise RecipeError(
            f"low-rank(bytes={budget}): the {len(spectra)} Linear to factorize take {format_bytes(least)} ({least:,} "
            f"bytes) at the least, at rank 1; give at least that"
        )
    left = budget - least
    gains = [_gain(spectrum, 1, index) for index, spectrum in enumerate(spectra)]
    heapq.heapify(gains)
    while gains:
        _, index = heapq.heappop(gains)
        spectrum = spectra[index]
        if ranks[index] < spectrum.largest_rank and spectrum.bytes_per_rank <= left:
            left -= spectrum.bytes_per_rank
            ranks[index] += 1
            heapq.heappush(gains, _gain(spectrum, ranks[index], index))
    return ranks


def _gain(spectrum: Spectrum, rank: int, index: int) -> tuple[float, int]:
    """Negative, because a heap gives its smallest first; among equals the first layer."""
    share = spectrum.shares[rank] if rank < len(spectrum.shares) else 0.0
    return -share / spectrum.bytes_per_rank, index


def _spectrum(linear: nn.Linear) -> Spectrum:
    import torch

    weight = linear.weight
    squares = torch.linalg.svdvals(weight.detach().double()).square()
    total = float(squares.sum())
    shares = (squares / total).tolist() if total else [1.0] + [0.0] * (len(squares) - 1)
    largest = (weight.numel() - 1) // sum(weight.shape)
    bias_bytes = 0 if linear.bias is None else linear.bias.nbytes
    return Spectrum(shares, sum(weight.shape) * weight.element_size(), bias_bytes, largest)


def _reason_to_keep(linear: nn.Linear, tied: set[int]) -> str:
    from torch import nn

    if type(linear) is not nn.Linear:
        return "not exactly nn.Linear (a subclass or a part of MultiheadAttention)"
    if linear.weight.numel() < SMALLEST_WEIGHT_COUNT:
        return f"fewer than {SMALLEST_WEIGHT_COUNT} weights each"
    if id(linear.weight) in tied or id(linear.bias) in tied:
        return "another module shares their weight"
    if not linear.weight.is_floating_point():
        return "their weights are not in floating point"
    if (linear.weight.numel() - 1) // sum(linear.weight.shape) < 1:
        return "two layers of rank 1 would be no smaller"
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


def _energy_note(energies: list[float], factors: list[nn.Module], budget: int | None) -> str:
    layers = "1 Linear was" if len(energies) == 1 else f"{len(energies)} Linear were"
    taken = sum(parameter.nbytes for pair in factors for parameter in pair.parameters())
    of_budget = "" if budget is None else f" into {taken:,} of at most {budget:,} bytes"
    return (
        f"{layers} factorized{of_budget}; of the squared singular values the layers keep {min(energies):.1%} at the "
        f"least and {sum(energies) / len(energies):.1%} on average: little kept usually means that the accuracy needs "
        f"training"
    )


def _other_layers(model: nn.Module) -> tuple[str, ...]:
    from torch import nn

    others = [
        module
        for _, module in weight_owners(model)
        if not isinstance(module, nn.Linear) and any(p.dim() > 1 for p in module.parameters(recurse=False))
    ]
    return (f"{owners_in_words(others)} left as they are: low-rank factorizes Linear only",) if others else ()
