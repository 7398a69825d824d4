"""Every built-in recipe by name. Importing this imports no torch."""

from __future__ import annotations

from pytest_modelopt.recipes.base import Recipe
from pytest_modelopt.recipes.int8_dynamic import Int8Dynamic
from pytest_modelopt.recipes.int8_static import Int8Static
from pytest_modelopt.recipes.low_rank import LowRank
from pytest_modelopt.recipes.prune_structured import PruneStructured
from pytest_modelopt.recipes.prune_unstructured import PruneUnstructured

RECIPES: dict[str, type[Recipe]] = {
    recipe.recipe_name: recipe for recipe in (Int8Dynamic, Int8Static, LowRank, PruneStructured, PruneUnstructured)
}
