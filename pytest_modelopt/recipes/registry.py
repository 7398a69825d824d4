"""Every recipe by name: the built-in ones, and those that a project or an installed package adds. Imports no torch."""

from __future__ import annotations

from pytest_modelopt.recipes.base import Recipe
from pytest_modelopt.recipes.channels_last import ChannelsLast
from pytest_modelopt.recipes.compile import Compile
from pytest_modelopt.recipes.fold_batchnorm import FoldBatchNorm
from pytest_modelopt.recipes.int8_dynamic import Int8Dynamic
from pytest_modelopt.recipes.int8_static import Int8Static
from pytest_modelopt.recipes.low_rank import LowRank
from pytest_modelopt.recipes.prune_structured import PruneStructured
from pytest_modelopt.recipes.prune_unstructured import PruneUnstructured

BUILT_IN: tuple[type[Recipe], ...] = (
    # quantization
    Int8Dynamic,
    Int8Static,
    # pruning
    PruneUnstructured,
    PruneStructured,
    # factorization
    LowRank,
    # the same numbers, run otherwise
    FoldBatchNorm,
    ChannelsLast,
    Compile,
    # other runtimes
)

RECIPES: dict[str, type[Recipe]] = {recipe.recipe_name: recipe for recipe in BUILT_IN}
