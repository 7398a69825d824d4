"""A model of our own for projects that have no budgets.yaml yet: its calls take a few milliseconds on one core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.measure.variant import Variant, environment_now
from pytest_modelopt.metrics import MetricSpec

if TYPE_CHECKING:
    import torch
    from torch import nn


def reference_variant() -> Variant:
    """Our own model as a variant, found by name in whatever environment the workers run."""
    here = "pytest_modelopt.measure.reference"
    return Variant(
        model=f"{here}:model",
        recipe=None,
        data=None,
        calibration=None,
        example_inputs=f"{here}:inputs",
        metric=MetricSpec(),
        import_paths=(str(Path(__file__).parents[2]),),
        working_directory=str(Path.cwd()),
        environment=environment_now(),
    )


def model() -> nn.Module:
    """Convolutions and linear layers, 0.8 million weights."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 192),
        nn.ReLU(),
        nn.Linear(192, 10),
    ).eval()


def inputs() -> torch.Tensor:
    """One image of 64 x 64."""
    import torch

    return torch.randn(1, 3, 64, 64)
