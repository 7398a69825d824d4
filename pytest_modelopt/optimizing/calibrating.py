"""Batches of the project's calibration data, drawn for a recipe: the refusals and notes that all such recipes share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.recipe import Context, RecipeError

if TYPE_CHECKING:
    from torch import nn


def require_calibration(context: Context, recipe: str, otherwise: str = "") -> None:
    """Before anything is done to the model. `otherwise` is another way out, such as ", or write ...".

    Raises:
        RecipeError: the project gave no calibration data.
    """
    if context.calibration is None:
        raise RecipeError(f"{recipe} needs calibration data: add `calibration: package.module:function`{otherwise}")


def calibration_batches(context: Context, recipe: str, count: int) -> Iterator[tuple[int, Inputs]]:
    """The first `count` batches, each with its number from 1.

    Raises:
        RecipeError: there is none.
    """
    assert context.calibration is not None
    number = 0
    for number, batch in enumerate(itertools.islice(context.calibration(), count), 1):
        yield number, batch
    if not number:
        raise RecipeError(f"{recipe} needs calibration data, and the calibration gave no batch")


def run_observers(prepared: nn.Module, context: Context, recipe: str, count: int) -> int:
    """Call the model, in which observers note ranges, on `count` batches; the number of batches that there were."""
    import torch

    number = 0
    with torch.no_grad():
        for number, batch in calibration_batches(context, recipe, count):
            try:
                call(prepared, batch)
            except Exception as error:
                raise does_not_run(recipe, number, last_line(error)) from error
    return number


def does_not_run(recipe: str, number: int, why: str) -> RecipeError:
    """The error for a model that refuses calibration batch `number`."""
    return RecipeError(f"{recipe}: the model does not run on calibration batch {number}: {why}")


def fewer_batches(seen: int, count: int) -> tuple[str, ...]:
    """A note where the data held fewer batches than were asked for."""
    if seen == count:
        return ()
    return (f"calibrated with {seen} of {count} batches: the calibration data holds no more",)
