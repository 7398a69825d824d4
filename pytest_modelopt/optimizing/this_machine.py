"""What this machine is, for targets and records: processor features, versions, GPUs. Imports no torch."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from pytest_modelopt import system
from pytest_modelopt.optimizing import cpu_flags
from pytest_modelopt.optimizing.runtimes.runtime import runtimes
from pytest_modelopt.results.target import Fingerprint

TELLING_FLAGS = frozenset(
    {
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
)
"""Features that decide how fast and how exactly reduced precision runs on a CPU."""
_PACKAGES = (
    "pytest",
    "numpy",
    "cloudpickle",
    "torch-pruning",
    "memray",
    "torchao",
    *(package for runtime in runtimes().values() for package in runtime.packages),
)
RUNTIMES = ("torch", "python", *_PACKAGES[1:])
"""Of what a target may ask for a version."""


def versions() -> dict[str, str]:
    """Of the packages on which figures depend, those that are installed."""
    found = {package: _version(package) for package in _PACKAGES}
    return {package: version for package, version in found.items() if version is not None}


def fingerprint() -> Fingerprint:
    """What a worker's `Environment` says of this machine, without one. The GPU is the first that the driver lists."""
    _, flags = cpu_flags.name_and_flags()
    known = {**versions(), "python": platform.python_version()}
    if (torch := _version("torch")) is not None:
        known["torch"] = torch
    gpus = system.gpus()
    return Fingerprint(platform.machine(), flags & TELLING_FLAGS, os.cpu_count() or 1, gpus[0] if gpus else "", known)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
