"""Modules and parameters that a model holds under more than one name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def tied_parameters(model: nn.Module) -> set[int]:
    """`id` of every parameter that two different modules hold."""
    holders = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in {*module._parameters.values()}
        if parameter is not None
    )
    return {key for key, count in holders.items() if count > 1}


def replace_modules(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace modules under all their names, the model itself included; what was shared stays shared.

    `replacement` is asked once for each module and answers None to keep it. A replaced module's children are not asked.
    """
    made: dict[int, nn.Module] = {}
    kept: set[int] = set()

    def visit(module: nn.Module) -> nn.Module:
        if id(module) in made:
            return made[id(module)]
        if id(module) in kept:
            return module
        new = replacement(module)
        if new is not None:
            originals.append(module)
            made[id(module)] = new
            return new
        kept.add(id(module))
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = visit(child)
        return module

    originals: list[nn.Module] = []  # kept alive, so that no id is used twice
    return visit(model)
