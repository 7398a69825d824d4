"""What packed weights take beyond their numbers: packing them once more tells what freeing them gives back."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.worker.memory import balance, process_counters
from pytest_modelopt.measuring.worker.memory.tensor_meter import Walk
from pytest_modelopt.optimizing.quantization import torch_ao

KERNELS: Any = torch.ops.quantized


def weight(*shape: int) -> torch.Tensor:
    scales, zeros = torch.full(shape[:1], 0.02), torch.zeros(shape[0], dtype=torch.long)
    return torch.quantize_per_channel(torch.randn(shape), scales, zeros, 0, torch.qint8)


def image(channels: int) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(1, channels, 8, 8), 0.05, 64, torch.quint8)


def convolution(rows: int, columns: int, kernel: int, groups: int = 1) -> torch.ScriptObject:
    padding = [kernel // 2] * 2
    packed: torch.ScriptObject = KERNELS.conv2d_prepack(
        weight(rows, columns // groups, kernel, kernel), torch.randn(rows), [1, 1], padding, [1, 1], groups
    )
    KERNELS.conv2d(image(columns), packed, 0.1, 64)
    return packed


def linear(rows: int, columns: int) -> torch.ScriptObject:
    packed: torch.ScriptObject = KERNELS.linear_prepack(weight(rows, columns), torch.randn(rows))
    KERNELS.linear_dynamic(torch.randn(1, columns), packed)
    return packed


PACKED = {
    "large convolution": lambda: convolution(512, 512, 3),
    "convolution": lambda: convolution(256, 256, 3),
    "convolution to the point": lambda: convolution(1000, 40, 1),
    "grouped convolution": lambda: convolution(128, 128, 3, 2),
    "depthwise convolution": lambda: convolution(256, 256, 3, 256),
    "square Linear": lambda: linear(512, 512),
    "narrow Linear": lambda: linear(64, 64),
    "low Linear": lambda: linear(10, 8192),
    "wide Linear": lambda: linear(2000, 700),
}


ENGINES = [each for each in ("x86", "fbgemm", "onednn") if each in torch.backends.quantized.supported_engines]
"""oneDNN's packing of a Linear is what no recipe uses: x86 takes fbgemm for it."""


@pytest.mark.skipif(not process_counters.are_here(), reason="nothing counts what is freed")
@pytest.mark.parametrize(
    ("made", "engine"),
    [(made, engine) for made in PACKED for engine in ENGINES if "Linear" not in made or engine != "onednn"],
)
def test_what_packing_takes_is_what_freeing_gives_back(made: str, engine: str) -> None:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with torch.inference_mode(), torch_ao.quiet():
            PACKED[made]()  # generates kernels that stay
            packed = copy.deepcopy(PACKED[made]())  # which shares its numbers with nobody
            expected = balance._packing_bytes(packed) + Walk(packed).total_bytes()
            gc.collect()
            held = process_counters.allocated_bytes()
            del packed
            freed = held - process_counters.allocated_bytes()
    finally:
        torch.backends.quantized.engine = before
    assert abs(freed - expected) < balance._OF_PACKED / 2
