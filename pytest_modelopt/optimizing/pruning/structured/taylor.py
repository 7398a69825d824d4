"""Gradients of the loss on the project's calibration data, for importance by Taylor expansion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.pruning.structured.groups import all_gradients
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn

Training = Callable[[], Iterator[tuple[Inputs, "torch.Tensor | list[Any]"]]]


def accumulate_gradients(model: nn.Module, training: Training, batches: int) -> int:
    """Leave the gradient of the summed mean losses of the first batches in every parameter; the number of batches.

    The model stays in eval mode: batch norm and dropout work as they will.
    """
    import torch

    seen = 0
    clear_gradients(model)
    with all_gradients(model), torch.backends.cudnn.flags(enabled=False):  # cuDNN's RNN has no backward in eval mode
        for inputs, targets in itertools.islice(training(), batches):
            try:
                loss = loss_of(call(model, inputs), targets)
                loss.backward()  # type: ignore[no-untyped-call]
            except RecipeError:
                raise
            except Exception as error:
                raise RecipeError(
                    f"prune-structured cannot compute gradients on calibration batch {seen + 1}: {last_line(error)}; "
                    f"importance=magnitude needs none"
                ) from error
            if not math.isfinite(loss.item()):
                raise RecipeError(
                    f"prune-structured: the loss on calibration batch {seen + 1} is {loss.item()}, so its gradients "
                    f"say nothing; use importance=magnitude"
                )
            seen += 1
    if not seen:
        raise RecipeError("prune-structured needs calibration data, and the calibration gave no batch")
    for parameter in model.parameters():
        if parameter.grad is None and parameter.is_floating_point():
            parameter.grad = torch.zeros_like(parameter)
    return seen


def clear_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def loss_of(outputs: Any, targets: torch.Tensor | list[Any]) -> torch.Tensor:
    """Cross entropy for integer targets (classes last, or in dimension 1), mean squared error for float ones.

    Raises:
        RecipeError: where outputs and targets do not fit together.
    """
    import torch
    from torch.nn import functional

    if not isinstance(targets, torch.Tensor):
        raise RecipeError(
            "prune-structured(importance=taylor) needs targets in a tensor to compute a loss, and those of the "
            "calibration data are a list; use importance=magnitude"
        )
    scores = _scores(outputs)
    if targets.is_floating_point():
        if scores.shape != targets.shape and scores.squeeze(-1).shape == targets.shape:
            scores = scores.squeeze(-1)
        if scores.shape == targets.shape:
            return functional.mse_loss(scores.float(), targets.float())
    elif targets.dtype is not torch.bool and not targets.is_complex() and scores.dim() > 1:
        if scores.shape[:-1] == targets.shape:
            return functional.cross_entropy(scores.float().flatten(0, -2), targets.long().flatten())
        if scores.shape[:1] + scores.shape[2:] == targets.shape:
            return functional.cross_entropy(scores.float(), targets.long())
    raise RecipeError(
        f"prune-structured(importance=taylor) takes cross entropy for integer targets and the mean squared error for "
        f"float ones; outputs {tuple(scores.shape)} and targets {tuple(targets.shape)} {str(targets.dtype)[6:]} fit "
        f"neither; use importance=magnitude"
    )


def _scores(outputs: Any) -> torch.Tensor:
    """The tensor that is compared with the targets: the output itself, or its `logits`."""
    import torch

    found = outputs
    if not isinstance(found, torch.Tensor):
        found = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    if not isinstance(found, torch.Tensor):
        raise RecipeError(
            f"prune-structured(importance=taylor) needs a tensor to compare with the targets, but the model returns a "
            f"{type(outputs).__name__} without `logits`; use importance=magnitude"
        )
    return found
