"""The layers of a model before any recipe: what each of them weighs, and what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.coverage import compare, snapshot
from pytest_modelopt.optimizing.modules.linear_alike import LinearAlike
from pytest_modelopt.optimizing.modules.multiply_adds import multiply_adds
from pytest_modelopt.results.measurement import LayerCoverage

if TYPE_CHECKING:
    from torch import nn


def layers(model: nn.Module, inputs: Inputs) -> tuple[LayerCoverage, ...]:
    """Weight bytes, and multiply-adds of one call on `inputs`, of each layer; nothing of them is changed.

    A layer that behaves like a Linear is told as one, since recipes take it as one.
    """
    from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile

    if isinstance(model, FromFile):
        return compare(snapshot(model), model)
    alike = LinearAlike(model, inputs)
    alike.lend()
    try:
        return compare(snapshot(model), model, multiply_adds=multiply_adds(model, inputs))
    finally:
        alike.give_back(model)
