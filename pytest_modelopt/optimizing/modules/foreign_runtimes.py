"""Runtimes that keep a model's weights to themselves, and where a model holds an object of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.runtimes.runtime import runtimes

if TYPE_CHECKING:
    from torch import nn


def runtime_of(value: Any) -> str:
    """The runtime whose object this is, or of a class that was derived from one of its own; '' for all others."""
    for kind in type(value).__mro__:
        for runtime in runtimes().values():
            if any(f"{kind.__module__}.".startswith(f"{package}.") for package in runtime.objects):
                return runtime.name
    return ""


def held_by(model: nn.Module) -> tuple[str, str]:
    """The first attribute of the model's modules that is such an object, by its dotted name, and its runtime."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if runtime := runtime_of(value):
                return f"{name}.{attribute}" if name else attribute, runtime
    return "", ""
