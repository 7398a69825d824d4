"""A speed test as a user of pytest-benchmark writes it. benchmarks/methods.py runs it twice for one comparison."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.rivals import workload


def test_latency(benchmark: Any) -> None:
    model, image = workload.model(), workload.image()
    with torch.inference_mode():
        model(image)
        benchmark(model, image)
