"""Counting multiply-adds costs a worker no import of torch's compiler, and comes to the same with and without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import sys
{first}
import torch
from torch import nn
from pytest_modelopt.recipes.multiply_adds import multiply_adds

model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
print(sorted(multiply_adds(model, torch.zeros(2, 3, 8, 8)).items()), "torch._dynamo" in sys.modules)
"""
BY_HAND = [("0", 2 * 8 * 6 * 6 * 3 * 3 * 3), ("3", 2 * 10 * 8 * 36)]


@pytest.mark.parametrize("first", ["", "import torch._dynamo"])
def test_the_compiler_is_not_imported_to_count(first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(first=first)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == f"{BY_HAND} {bool(first)}"
