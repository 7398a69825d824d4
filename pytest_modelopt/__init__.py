"""pytest plugin: optimize PyTorch models, and gate their memory, speed and accuracy.

The public names load on first use: importing this package imports neither torch nor numpy, yaml or pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Applied": "pytest_modelopt.optimizing.recipe",
    "Comparison": "pytest_modelopt.plugin.comparison",
    "Context": "pytest_modelopt.optimizing.recipe",
    "Coverage": "pytest_modelopt.results.measurement",
    "Form": "pytest_modelopt.optimizing.recipe",
    "Inputs": "pytest_modelopt.optimizing.calling",
    "LayerRecipe": "pytest_modelopt.optimizing.recipe",
    "ModelOpt": "pytest_modelopt.plugin.fixtures",
    "NotMeasured": "pytest_modelopt.plugin.comparison",
    "Optimized": "pytest_modelopt.plugin.comparison",
    "Optimizer": "pytest_modelopt.plugin.fixtures",
    "Recipe": "pytest_modelopt.optimizing.recipe",
    "RecipeError": "pytest_modelopt.optimizing.recipe",
    "Record": "pytest_modelopt.results.record",
    "Verdict": "pytest_modelopt.results.verdicts",
}

__all__ = [
    "Applied",
    "Comparison",
    "Context",
    "Coverage",
    "Form",
    "Inputs",
    "LayerRecipe",
    "ModelOpt",
    "NotMeasured",
    "Optimized",
    "Optimizer",
    "Recipe",
    "RecipeError",
    "Record",
    "Verdict",
    "__version__",
]

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.calling import Inputs
    from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe, Recipe, RecipeError
    from pytest_modelopt.plugin.comparison import Comparison, NotMeasured, Optimized
    from pytest_modelopt.plugin.fixtures import ModelOpt, Optimizer
    from pytest_modelopt.results.measurement import Coverage
    from pytest_modelopt.results.record import Record
    from pytest_modelopt.results.verdicts import Verdict


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
