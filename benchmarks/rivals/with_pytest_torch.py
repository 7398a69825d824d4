"""A speed test as a user of pytest-torch writes it. benchmarks/methods.py runs it twice for one comparison."""

from __future__ import annotations

import os
import time
from typing import Any

from pytest_torch.benchmark import BenchmarkSuite

from benchmarks.rivals import workload


class TestDigits(BenchmarkSuite):
    batch_sizes = (1,)
    latency_tolerance = float(os.environ.get(workload.LIMIT_VARIABLE, "0.25"))

    def make_model(self) -> Any:
        return workload.model()

    def make_inputs(self, batch_size: int, make_tensor: Any) -> Any:
        """Called last before the timing."""
        image = workload.image()
        self.start = time.perf_counter()
        return image

    def teardown_method(self) -> None:
        workload.seconds_of_timing = time.perf_counter() - self.start
