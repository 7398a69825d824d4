"""The work that every method compares: digits-vit, one image, one thread; and a copy that is slower by a share."""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

from example_project import vision

SLOWDOWN_VARIABLE = "BENCHMARKS_SLOWDOWN"
"""How the tests in this folder are told which copy to time: 0.15 is 15% slower, 0 or nothing the model itself."""
LIMIT_VARIABLE = "BENCHMARKS_LIMIT"
"""The slowdown that a test allows, where it is the test that says so: 0.05 is 5%."""

seconds_of_timing = 0.0
"""Left here by a test whose tool does not say how long it timed."""


class Slowed(nn.Module):
    """A model whose every call takes `slowdown` longer: it measures itself and busy-waits for that share."""

    def __init__(self, model: nn.Module, slowdown: float) -> None:
        super().__init__()
        self.model = model
        self._factor = 1 + slowdown

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter_ns()
        logits: Tensor = self.model(images)
        end = start + (time.perf_counter_ns() - start) * self._factor
        while time.perf_counter_ns() < end:
            pass
        return logits


def model(slowdown: float | None = None) -> nn.Module:
    """A fresh copy of the model; how much slower it is comes from the environment unless it is given."""
    torch.set_num_threads(1)
    if slowdown is None:
        slowdown = float(os.environ.get(SLOWDOWN_VARIABLE, "0"))
    original = vision.load_model()
    return Slowed(original, slowdown).eval() if slowdown else original


def image() -> Tensor:
    """The first test example, [1, 1, 8, 8]."""
    return vision.test_data()[0][:1]
