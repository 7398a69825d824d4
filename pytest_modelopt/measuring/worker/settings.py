"""Settings of the whole process that decide how a model runs: a recipe that changes one changes more than the model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from operator import attrgetter

import torch

_INDUCTOR = (
    "freezing",
    "max_autotune",
    "coordinate_descent_tuning",
    "epilogue_fusion",
    "cpp_wrapper",
    "force_fuse_int_mm_with_mul",
    "shape_padding",
    "layout_optimization",
    "fallback_random",
    "emulate_precision_casts",
    "cpp.threads",
)
"""Those of the compiler that people set. It sets others itself, which says nothing about a recipe."""

_SET_BY_COMPILER = "TORCHINDUCTOR_CACHE_DIR"


def chosen(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without the one that torch's compiler sets where it is imported: that is no choice of the
    project's, and each process would set it alike."""
    return {name: value for name, value in environment.items() if name != _SET_BY_COMPILER}


def settings() -> dict[str, str]:
    """Name and value of each; of the compiler, once it was imported, those that are not at their defaults."""
    mkldnn: object = torch.backends.mkldnn
    found = {
        "threads": str(torch.get_num_threads()),
        "threads between operators": str(torch.get_num_interop_threads()),
        "cuDNN benchmark": _switch(torch.backends.cudnn.benchmark),
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "quantized engine": torch.backends.quantized.engine,
        "gradients": _switch(torch.is_grad_enabled()),
        "deterministic algorithms": _switch(torch.are_deterministic_algorithms_enabled()),
        "oneDNN": _switch(bool(getattr(mkldnn, "enabled", True))),
        "fused path of TransformerEncoderLayer": _switch(torch.backends.mha.get_fastpath_enabled()),
    }
    return found | _inductor_settings()


def compilations() -> int:
    """Graphs that torch.compile has made in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    return int(utils.counters["stats"]["unique_graphs"]) if utils is not None else 0


def _inductor_settings() -> dict[str, str]:
    config = sys.modules.get("torch._inductor.config")
    if config is None:
        return {}
    # A torch without one of them, or without a way to tell its default, has nothing to tell about it.
    is_default = getattr(config, "_is_default", lambda name: True)
    known = getattr(config, "_config", {})
    values = {name: attrgetter(name)(config) for name in _INDUCTOR if name in known and not is_default(name)}
    # What was patched for a while and put back is still not "default" to torch, but has its value.
    return {f"inductor {name}": str(value) for name, value in values.items() if value != known[name].default}


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"
