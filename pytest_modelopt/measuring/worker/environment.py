"""The machine and the libraries that figures belong to, as seen by a worker."""

from __future__ import annotations

import os
import platform

import torch

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.this_machine import TELLING_FLAGS, versions
from pytest_modelopt.results.record import Environment


def environment(gpu: str | None = None) -> Environment:
    """What this process runs on; `gpu` is the one that the models run on, if any."""
    name, flags = cpu_flags.name_and_flags()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=name,
        cpu_count=os.cpu_count() or 1,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_flags=tuple(sorted(flags & TELLING_FLAGS)),
        torch=str(torch.__version__),  # a TorchVersion would make the pytest process import torch to read it
        quantized_engine=torch.backends.quantized.engine,
        gpu=gpu,
        packages=versions(),
        architecture=platform.machine(),
    )
