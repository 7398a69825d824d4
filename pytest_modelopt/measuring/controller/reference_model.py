"""A model of our own for projects that have no budgets.yaml yet: its calls take a few milliseconds on one core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.results.metric import MetricSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = 10
EXAMPLES = 100
_EXAMPLES_SEEN = 20
"""By the model when it is made, which each worker does: few, so that it takes a tenth of a second."""
_NOISE = 1.0
"""As large as the patterns."""


def reference_variant() -> Variant:
    """Our own model as a variant, found by name in whatever environment the workers run."""
    here = "pytest_modelopt.measuring.controller.reference_model"
    return Variant(
        model=f"{here}:model",
        recipe=None,
        data=f"{here}:data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(Path(__file__).parents[3]),),
        working_directory=str(Path.cwd()),
        environment=environment_now(),
    )


def model() -> nn.Module:
    """Convolutions and linear layers, 0.8 million weights, that tell the patterns of `data` apart.

    Nothing is trained: the layers are random, and the last one takes each image for the pattern whose features, as
    other images show them, are the nearest.
    """
    import torch
    from torch import nn

    torch.manual_seed(1)
    body = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 8 * 8, 192),
    )
    norm, last = nn.BatchNorm1d(192, momentum=1.0), nn.Linear(192, CLASSES)
    with torch.no_grad():
        images, labels = _images(_EXAMPLES_SEEN, seed=2)
        features = norm(body(images)).relu()  # in training mode, and by momentum 1 these statistics are kept
        nearest = torch.stack([features[labels == label].mean(dim=0) for label in range(CLASSES)])
        last.weight.copy_(nearest)
        last.bias.copy_(-nearest.square().sum(dim=1) / 2)
    return nn.Sequential(*body, norm, nn.ReLU(), last).eval()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 64 x 64, and which of the patterns lies under the noise."""
    return _images(EXAMPLES, seed=3)


def _images(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    patterns = torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return patterns.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[labels] + _NOISE * noise, labels
