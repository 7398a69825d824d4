"""Public checks for those who write recipes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.recipe import Recipe

__all__ = ["check_recipe"]

MODELS = ("mlp", "cnn", "lstm", "attention")


def check_recipe(recipe: Recipe, *, models: Collection[str] = MODELS) -> None:
    """Run a recipe on small models as the gate does, in this process and in workers, and hold it to its promises.

    On each model it changes something or says why not; gives the same variant with the same seed; leaves other models,
    its inputs and torch's settings as they were; changes only what `changes` and `reached` say; and leaves a model that
    can be saved, and that answers the same in another process. Its parameters can be written in an expression, and it
    imports no package that `requires` does not name.

    Args:
        recipe: with the parameters to check. It need not be registered.
        models: "mlp", "cnn", "lstm", "attention": fewer of them take less time, about a second for each.

    Raises:
        AssertionError: one line for each broken promise, or why the recipe cannot be checked: it lacks a package, does
            not fit this machine, or refuses all of the models.
        TypeError: `recipe` is not an object of a subclass of `pytest_modelopt.Recipe`.
        ValueError: there is no such model.
    """
    from pytest_modelopt.measuring.controller.recipe_check import broken_promises
    from pytest_modelopt.optimizing.recipe import Recipe

    if not isinstance(recipe, Recipe):
        raise TypeError(f"check_recipe() takes an object of a recipe class, such as MyRecipe(), not {recipe!r}")
    if unknown := [name for name in models if name not in MODELS]:
        raise ValueError(f"check_recipe() has no model {unknown[0]!r}; its models are {', '.join(MODELS)}")
    broken = broken_promises(recipe, models)
    if broken:
        raise AssertionError("\n".join(broken))
