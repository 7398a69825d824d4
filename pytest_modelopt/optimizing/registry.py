"""Every recipe by name: the built-in ones, and those that a project or an installed package adds. Imports no torch."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import GenericAlias
from typing import TypeGuard

from pytest_modelopt.optimizing.recipe import Recipe, RecipeError
from pytest_modelopt.results.case import ORIGINAL

FAMILIES = ("quantization", "pruning", "factorization", "graph", "runtimes")
"""The folders of built-in recipes, in the order in which they are told."""


def _built_in() -> tuple[type[Recipe], ...]:
    """Every recipe that a module of these folders defines: by family, and in a family as `_order` says."""
    found: list[type[Recipe]] = []
    for family in FAMILIES:
        package = importlib.import_module(f"{__package__}.{family}")
        names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        # What recipes leave behind in a model imports torch.
        modules = [importlib.import_module(name) for name in names if not name.endswith("_module")]
        classes = [
            value
            for module in modules
            for value in vars(module).values()
            if _is_recipe(value) and value.__module__ == module.__name__
        ]
        found += sorted((each for each in classes if "recipe_name" in vars(each)), key=_order)
    return tuple(found)


def _is_recipe(value: object) -> TypeGuard[type[Recipe]]:
    """Before Python 3.11 `list[int]` passes for a class, and `issubclass` raises TypeError for it."""
    return isinstance(value, type) and not isinstance(value, GenericAlias) and issubclass(value, Recipe)


def _order(recipe: type[Recipe]) -> tuple[bool, bool, str]:
    """Int8 by torch itself, by torchao, then 16 bits; advice names the first ones."""
    return recipe.gives == "low precision", recipe.gives == "torchao", recipe.recipe_name


BUILT_IN = _built_in()

RECIPES: dict[str, type[Recipe]] = {recipe.recipe_name: recipe for recipe in BUILT_IN}
"""By name, in the order in which they are told."""

ENTRY_POINTS = "pytest_modelopt.recipes"
"""Group of the entry points by which an installed package adds recipes: `name = "package.module:Recipe"`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]*\Z")


def register(recipe: type[Recipe]) -> None:
    """Add a recipe of a project or a package.

    Raises:
        RecipeError: if it is not a whole recipe, or its name is taken.
    """
    if not _is_recipe(recipe):
        raise RecipeError(f"{recipe!r} is not a subclass of pytest_modelopt.Recipe")
    label = f"{recipe.__module__}.{recipe.__qualname__}"
    for attribute in ("recipe_name", "summary"):
        if not isinstance(getattr(recipe, attribute, None), str) or not getattr(recipe, attribute):
            raise RecipeError(f"the recipe {label} does not set `{attribute}`, a class variable (text)")
    if inspect.isabstract(recipe):
        raise RecipeError(f"the recipe {label} does not define `apply`")
    name = recipe.recipe_name
    if not _NAME.match(name):
        raise RecipeError(f"{name!r}, the name of {label}, is not made of lower-case letters, digits, '-', '.' and ':'")
    if name == ORIGINAL:
        raise RecipeError(f"{name!r}, the name of {label}, stands for the model without a recipe: choose another")
    known = RECIPES.setdefault(name, recipe)
    if known is not recipe:
        raise RecipeError(f"the name {name!r} of {label} is taken by {known.__module__}.{known.__qualname__}")


def register_installed() -> None:
    """Add the recipes of installed packages.

    Raises:
        RecipeError: naming the entry point that cannot be loaded, or that is not a recipe.
    """
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            recipe = entry_point.load()
        except Exception as error:
            raise RecipeError(
                f"the entry point {entry_point.name} = {entry_point.value} of {ENTRY_POINTS} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        register(recipe)


def added() -> tuple[type[Recipe], ...]:
    """The recipes that are not built in."""
    return tuple(recipe for recipe in RECIPES.values() if recipe not in BUILT_IN)


def added_by_conftest() -> dict[str, Path]:
    """By name, the files of those that a conftest.py defines: each folder may have one, so none is imported by name."""
    files = {recipe.recipe_name: str(getattr(sys.modules.get(recipe.__module__), "__file__", "")) for recipe in added()}
    return {name: Path(file) for name, file in files.items() if file.endswith("conftest.py")}


def forget_added() -> None:
    """What one run added is not known to the next one in the same process."""
    for recipe in added():
        del RECIPES[recipe.recipe_name]
