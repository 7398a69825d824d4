"""The recipe of a control that must fail: nine of ten weights become zero, whatever the model was trained for.

It is shipped to the workers like a recipe of the project's own and never registered, so no budget can name it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe, RecipeError

if TYPE_CHECKING:
    from torch import nn

SHARE = 0.9
"""Of the weights that become zero."""


class Sabotage(Recipe):
    """Set 90% of the weights to zero, drawn at random: of all matrices, or of every parameter where there are none."""

    recipe_name: ClassVar[str] = "sabotage"
    summary: ClassVar[str] = "sets 90% of the weights to zero at random, which no gate may let pass"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        import torch

        parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
        weights = [parameter for parameter in parameters if parameter.dim() > 1] or parameters
        if not weights:
            raise RecipeError("sabotage: the model holds no floating-point parameters of torch that could become zero")
        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            for weight in weights:
                drawn = torch.rand(weight.shape, generator=generator) < SHARE
                weight.masked_fill_(drawn.to(weight.device), 0.0)
        return Applied(model)
