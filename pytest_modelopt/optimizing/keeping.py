"""Layers that stay as they are: the modules that `keep` names, and what cannot be changed without them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.describe import author_name, owners_in_words, weight_owners
from pytest_modelopt.optimizing.modules.shared_tensors import holders
from pytest_modelopt.optimizing.recipe import Context, LayerRecipe, Recipe, RecipeError, keep_patterns
from pytest_modelopt.results.measurement import LayerCoverage

if TYPE_CHECKING:
    from torch import nn

_NAMED = 3
"""Layers that an error names."""


def with_kept(recipe: Recipe, model: nn.Module, context: Context) -> Context:
    """The context with the modules of `model` that the recipe keeps.

    Raises:
        RecipeError: a pattern matches no module, or the model has none.
    """
    if not isinstance(recipe, LayerRecipe) or not recipe.keep:
        return replace(context, kept=frozenset())
    return replace(context, kept=kept_modules(model, recipe.keep, recipe.recipe_name))


def kept_modules(model: nn.Module, keep: str, recipe_name: str) -> frozenset[nn.Module]:
    """The modules that `keep` names, all within them, and all that shares a weight with them.

    An nn.MultiheadAttention reads the weights of its parts itself: it stays whole if one of them stays.

    Raises:
        RecipeError: a pattern matches no module, with the nearest name; or the model has none.
    """
    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

    if isinstance(model, ProgramFile):
        raise RecipeError(
            f"{recipe_name}: keep names modules of torch, and a model in a file has none: leave `keep` out, or name a "
            "`factory:` for the model"
        )
    names = dict(named_modules(model))
    kept: set[nn.Module] = set()
    for pattern in keep_patterns(keep):
        matched = [module for name, module in names.items() if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise RecipeError(f"{recipe_name}: keep names {pattern!r}, and the model has no such module{hint}")
        for module in matched:
            kept.update(module.modules())
    return frozenset(with_those_that_share(model, kept))


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by the names that the author knows, the model itself left out."""
    from pytest_modelopt.optimizing.quantization.low_precision_module import LowPrecision

    inner = model.model if isinstance(model, LowPrecision) else model
    for name, module in inner.named_modules(remove_duplicate=False):
        if author_name(name):
            yield author_name(name), module


def with_those_that_share(model: nn.Module, kept: set[nn.Module]) -> set[nn.Module]:
    """`kept`, to which all is added that shares a weight, and all of an attention."""
    from torch import nn

    holding = holders(model)
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    while True:
        tensors = [t for module in kept for t in (*module._parameters.values(), *module._buffers.values())]
        more = {other for tensor in tensors if tensor is not None for other in holding.get(id(tensor), ())}
        for attention in attentions:
            if not kept.isdisjoint(attention.modules()):
                more.update(attention.modules())
        if more <= kept:
            return kept
        kept |= more


def outermost(model: nn.Module, kept: Collection[nn.Module]) -> list[nn.Module]:
    """Those of `kept` that lie in no other of them, each once."""
    inside = {child for module in kept for child in list(module.modules())[1:]}
    return [module for module in model.modules() if module in kept and module not in inside]


def parameter_names(model: nn.Module, kept: Collection[nn.Module]) -> set[str]:
    """The names, all of them, of the parameters that `kept` hold."""
    held = {id(parameter) for module in kept for parameter in module._parameters.values()}
    return {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in held}


class Keeping:
    """What a recipe was told to keep of a model, noted before it is applied: afterwards the modules may be others."""

    def __init__(self, recipe: Recipe, model: nn.Module, context: Context) -> None:
        self._recipe = recipe
        self._names = {name for name, module in named_modules(model) if module in context.kept}
        owners = [module for _, module in weight_owners(model) if module in context.kept]
        self._words = owners_in_words(owners) if owners else "no layer with weights"

    def notes(self) -> tuple[str, ...]:
        """What stays, in words."""
        if not self._names or not isinstance(self._recipe, LayerRecipe) or self._recipe.keeps == "width":
            return ()  # a recipe that keeps widths only tells which
        return (f"{self._words} left as they are: keep names them, or what shares their weights",)

    def check(self, layers: Collection[LayerCoverage]) -> None:
        """Hold the recipe to it.

        Raises:
            RecipeError: it has changed numbers of a layer that it was told to keep.
        """
        if not isinstance(self._recipe, LayerRecipe) or self._recipe.keeps != "numbers":
            return
        changed = [layer.name for layer in layers if layer.changed_bytes and layer.name in self._names]
        if changed:
            named = ", ".join(changed[:_NAMED]) + (f" and {len(changed) - _NAMED} more" if changed[_NAMED:] else "")
            raise RecipeError(
                f"{self._recipe.recipe_name} cannot keep {named}: what became of them is changed together with other "
                "layers, or was not found again; leave them out of `keep`, or take a recipe that stays in torch, such "
                "as int8-dynamic"
            )
