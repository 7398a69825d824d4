"""What a recipe with `keep=` must do: leave what it names bit by bit, and change the rest as without it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn

from tests.optimizing.recipe_models import Optimized, apply, make, run, saved_and_loaded


def changed(optimization: Optimized) -> set[str]:
    """Names of the layers whose weights the recipe changed."""
    return {layer.name for layer in optimization.coverage.layers if layer.changed_bytes}


def made(kind: str) -> tuple[Any, Any]:
    """With batch norms whose numbers are their own: by default all are ones and zeros, which are found anywhere."""
    model, inputs = make(kind)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model, inputs


def require_kept(recipe: str, kind: str, keep: str, whole: AbstractSet[str]) -> None:
    """Apply the recipe with `keep` to a model of this kind, of which it changes the layers `whole` without it."""
    kept = {name for name in whole if _is_within(name, keep)}
    assert kept, "the recipe would change what is kept"
    model, inputs = made(kind)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimization = apply(_keeping(recipe, keep), model, inputs)
    assert changed(optimization) == whole - kept
    now = dict(optimization.model.named_parameters())
    held = {name: now[name] for name in before if name.rpartition(".")[0] in kept and name in now}
    assert all(torch.equal(before[name], parameter) for name, parameter in held.items())
    assert "left as they are: keep names them" in " ".join(optimization.notes)
    run(saved_and_loaded(optimization.model), inputs)


def _keeping(recipe: str, keep: str) -> str:
    """The recipe's text with `keep` behind its other parameters."""
    name, bracket, rest = recipe.partition("(")
    return f"{name}({rest[:-1]}, keep='{keep}')" if bracket else f"{name}(keep='{keep}')"


def _is_within(name: str, keep: str) -> bool:
    return any(f"{name}.".startswith(f"{each.removesuffix('.*')}.") for each in keep.split(","))
