"""After pruning: the project's own training, or without it fresh batch-norm statistics."""

from __future__ import annotations

import importlib
import itertools
import random
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, owners_in_words, user_line
from pytest_modelopt.optimizing.pruning.structured.taylor import clear_gradients
from pytest_modelopt.optimizing.recipe import Context, RecipeError

if TYPE_CHECKING:
    from torch import nn

FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
"""`package.module:function`"""


def finetune(model: nn.Module, name: str, context: Context) -> tuple[nn.Module, str]:
    """The model after `function(model, batches)`, and the note. `batches()` gives fresh (inputs, targets) each time.

    Raises:
        RecipeError: if there is nothing to train on, or the function cannot be found or failed.
    """
    import torch

    if context.training is None:
        raise RecipeError(
            f"prune-structured(finetune={name}) needs calibration data with targets: add "
            f"`calibration: package.module:function`, which returns (inputs, targets)"
        )
    function = _imported(name)
    _seed(context.seed)
    model.train()
    try:
        with torch.enable_grad():
            returned = function(model, context.training)
    except Exception as error:
        raise RecipeError(
            f"prune-structured: finetune {name} failed{user_line(error)}: {last_line(error)}; it is called as "
            f"function(model, batches), where batches() gives (inputs, targets)"
        ) from error
    if returned is not None and not isinstance(returned, torch.nn.Module):
        raise RecipeError(
            f"prune-structured: finetune {name} returned a {type(returned).__name__}; it trains the model in place and "
            f"returns None, or returns a model"
        )
    model = model if returned is None else returned
    clear_gradients(model)
    return model.eval(), (
        f"the variant was trained further by {name}: its accuracy is not comparable with that of an original that was "
        f"not"
    )


def _imported(name: str) -> Callable[[nn.Module, Any], Any]:
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise RecipeError(
            f"prune-structured: finetune {name}: {module_name} cannot be imported: {last_line(error)}"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeError(f"prune-structured: finetune {name}: {module_name} has no {part}")
        found = getattr(found, part)
    if not callable(found):
        raise RecipeError(f"prune-structured: finetune {name} is a {type(found).__name__}, not a function")
    function: Callable[[nn.Module, Any], Any] = found
    return function


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def recalibrate(model: nn.Module, calibration: Callable[[], Iterator[Inputs]] | None, batches: int) -> tuple[str, ...]:
    """Replace running statistics of batch norm by their average over calibration batches; a note says what was done."""
    from torch import nn

    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        return ()
    words = owners_in_words(norms)
    if calibration is None:
        return (f"{words} keep the statistics of the unpruned model: give calibration data, and they are recomputed",)
    before = [
        (norm, norm.momentum, {key: value.clone() for key, value in norm._buffers.items() if value is not None})
        for norm in norms
    ]
    try:
        seen = _average_statistics(model, norms, itertools.islice(calibration(), batches))
        problem = "" if seen else "the calibration gave no batch"
    except Exception as error:
        problem = last_line(error)
    for norm, momentum, buffers in before:
        norm.momentum = momentum
        norm.eval()
        if problem:
            norm._buffers.update(buffers)
    if problem:
        return (f"{words} keep the statistics of the unpruned model, which could not be recomputed: {problem}",)
    short = f" ({batches} were asked for, the calibration data holds no more)" if seen < batches else ""
    return (f"the statistics of {words} were recomputed on {seen} calibration batches{short}",)


def _average_statistics(model: nn.Module, norms: list[Any], batches: Iterator[Inputs]) -> int:
    import torch

    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all batches alike
        norm.train()
    seen = 0
    with torch.no_grad():
        for inputs in batches:
            call(model, inputs)
            seen += 1
    return seen
