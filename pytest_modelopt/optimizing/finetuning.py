"""The project's own training of a model that a recipe has changed: `finetune=package.module:function`."""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from pytest_modelopt.optimizing.describe import last_line, user_line
from pytest_modelopt.optimizing.pruning.structured.taylor import clear_gradients
from pytest_modelopt.optimizing.recipe import Context, RecipeError

if TYPE_CHECKING:
    from torch import nn

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
"""`package.module:function`"""


def _names_a_function(value: str) -> str:
    if value and not _FUNCTION.match(value):
        raise ValueError(f"{value!r} names no function: write finetune='package.module:function'")
    return value


Finetune = Annotated[
    str,
    AfterValidator(_names_a_function),
    Field(description="package.module:function, called with (model, batches) to train afterwards"),
]
"""The parameter of a recipe; empty where nothing is trained."""


def finetune(model: nn.Module, recipe: str, name: str, context: Context) -> tuple[nn.Module, str]:
    """The model after `function(model, batches)`, and the note. `batches()` gives fresh (inputs, targets) each time.

    What `keep` names is frozen meanwhile. `recipe` is its name, for messages.

    Raises:
        RecipeError: if there is nothing to train on, or the function cannot be found or failed.
    """
    import torch

    if context.training is None:
        raise RecipeError(
            f"{recipe}(finetune={name}) needs calibration data with targets: add "
            f"`calibration: package.module:function`, which returns (inputs, targets)"
        )
    function = _imported(recipe, name)
    _seed(context.seed)
    model.train()
    kept = _trainable(model, context.kept)
    try:
        for parameter in kept.values():
            parameter.requires_grad_(False)
        with torch.enable_grad():
            returned = function(model, context.training)
    except Exception as error:
        raise RecipeError(
            f"{recipe}: finetune {name} failed{user_line(error)}: {last_line(error)}; it is called as "
            f"function(model, batches), where batches() gives (inputs, targets)"
        ) from error
    finally:
        for parameter in kept.values():
            parameter.requires_grad_(True)
    if returned is not None and not isinstance(returned, torch.nn.Module):
        raise RecipeError(
            f"{recipe}: finetune {name} returned a {type(returned).__name__}; it trains the model in place and "
            f"returns None, or returns a model"
        )
    if returned is not None:
        model = returned
        for own_name, parameter in model.named_parameters():  # of a copy, say of the best epoch
            parameter.requires_grad_(parameter.requires_grad or own_name in kept)
    clear_gradients(model)
    return model.eval(), (
        f"the variant was trained further by {name}: its accuracy is not comparable with that of an original that was "
        f"not"
    )


def _trainable(model: nn.Module, modules: Collection[nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters of these modules that need a gradient, by name."""
    own = {id(each) for module in modules for each in module.parameters(recurse=False)}
    return {name: each for name, each in model.named_parameters() if id(each) in own and each.requires_grad}


def _imported(recipe: str, name: str) -> Callable[[nn.Module, Any], Any]:
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise RecipeError(f"{recipe}: finetune {name}: {module_name} cannot be imported: {last_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(f"{recipe}: finetune {name}: {module_name} has no {part}")
        found = getattr(found, part)
    if not callable(found):
        raise RecipeError(f"{recipe}: finetune {name} is a {type(found).__name__}, not a function")
    function: Callable[[nn.Module, Any], Any] = found
    return function


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
