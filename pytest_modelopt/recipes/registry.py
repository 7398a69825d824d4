"""Every recipe by name: the built-in ones, and those that a project or an installed package adds. Imports no torch."""

from __future__ import annotations

from pytest_modelopt.recipes.base import Recipe
from pytest_modelopt.recipes.bf16 import Bf16
from pytest_modelopt.recipes.fp16 import Fp16
from pytest_modelopt.recipes.int8_dynamic import Int8Dynamic
from pytest_modelopt.recipes.int8_static import Int8Static
from pytest_modelopt.recipes.int8_weight_only import Int8WeightOnly
from pytest_modelopt.recipes.low_rank import LowRank
from pytest_modelopt.recipes.prune_structured import PruneStructured
from pytest_modelopt.recipes.prune_unstructured import PruneUnstructured
from pytest_modelopt.recipes.torchao_float8_dynamic import TorchaoFloat8Dynamic
from pytest_modelopt.recipes.torchao_int8_dynamic import TorchaoInt8Dynamic
from pytest_modelopt.recipes.torchao_int8_weight_only import TorchaoInt8WeightOnly
from pytest_modelopt.recipes.torchao_pt2e_int8 import TorchaoPt2eInt8

BUILT_IN: tuple[type[Recipe], ...] = (
    # quantization
    Int8Dynamic,
    Int8Static,
    # pruning
    PruneUnstructured,
    PruneStructured,
    # factorization
    LowRank,
    # smaller numbers in memory, worked with in floating point
    Int8WeightOnly,
    Bf16,
    Fp16,
    # torchao
    TorchaoInt8Dynamic,
    TorchaoInt8WeightOnly,
    TorchaoPt2eInt8,
    TorchaoFloat8Dynamic,
    # the same numbers, run otherwise
    # other runtimes
)

RECIPES: dict[str, type[Recipe]] = {recipe.recipe_name: recipe for recipe in BUILT_IN}
