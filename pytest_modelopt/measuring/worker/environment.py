"""The machine and the libraries that figures belong to, as seen by a worker."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.runtimes.runtime import runtimes
from pytest_modelopt.results.record import Environment

# Flags that decide how fast and how exactly reduced precision runs on a CPU.
_TELLING_FLAGS = {
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimddp",
    "i8mm",
    "sve",
    "bf16",
    "fphp",
    "asimdhp",
}
_PACKAGES = (
    "pytest",
    "numpy",
    "cloudpickle",
    "torch-pruning",
    "memray",
    "torchao",
    *(package for runtime in runtimes().values() for package in runtime.packages),
)


def environment(gpu: str | None = None) -> Environment:
    """What this process runs on; `gpu` is the one that the models run on, if any."""
    name, flags = cpu_flags.name_and_flags()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=name,
        cpu_count=os.cpu_count() or 1,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_flags=tuple(sorted(flags & _TELLING_FLAGS)),
        torch=str(torch.__version__),  # a TorchVersion would make the pytest process import torch to read it
        quantized_engine=torch.backends.quantized.engine,
        gpu=gpu,
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
