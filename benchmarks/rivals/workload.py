"""The work that every method compares, one call on one thread: digits-vit or a copy of it that is slower by a share,
or a program that `benchmarks.serving` keeps on disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from example_project import vision

SLOWDOWN_VARIABLE = "BENCHMARKS_SLOWDOWN"
"""How the tests in this folder are told which copy to time: 0.15 is 15% slower, 0 or nothing the model itself."""
PROGRAM_VARIABLES = ("BENCHMARKS_MODEL_FILE", "BENCHMARKS_INPUTS_FILE")
"""The files of another program than digits-vit, and of the inputs of its call."""
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


def model(slowdown: float | None = None) -> Any:
    """A fresh copy of the model; which, and how much slower, comes from the environment unless it is given."""
    torch.set_num_threads(1)
    if PROGRAM_VARIABLES[0] in os.environ:
        return _kept(PROGRAM_VARIABLES[0])
    if slowdown is None:
        slowdown = float(os.environ.get(SLOWDOWN_VARIABLE, "0"))
    original = vision.load_model()
    return Slowed(original, slowdown).eval() if slowdown else original


def image() -> Any:
    """What the call is given: the first test example, [1, 1, 8, 8], or the inputs of another program."""
    return _kept(PROGRAM_VARIABLES[1]) if PROGRAM_VARIABLES[1] in os.environ else vision.test_data()[0][:1]


def _kept(variable: str) -> Any:
    from pytest_modelopt.measuring.worker.files import size

    return size.load(Path(os.environ[variable]))
