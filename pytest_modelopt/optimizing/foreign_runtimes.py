"""Runtimes that keep a model's weights to themselves, and where a model holds an object of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

FOREIGN_RUNTIMES = {
    "ONNX Runtime": ("onnxruntime",),
    "OpenVINO": ("openvino",),
    "LiteRT": ("ai_edge_litert", "tflite_runtime", "tensorflow.lite"),
}
"""Runtimes by the packages that define the types of their objects."""


def runtime_of(value: Any) -> str:
    """The runtime whose object this is, or of a class that was derived from one of its own; '' for all others."""
    for kind in type(value).__mro__:
        for runtime, packages in FOREIGN_RUNTIMES.items():
            if any(f"{kind.__module__}.".startswith(f"{package}.") for package in packages):
                return runtime
    return ""


def held_by(model: nn.Module) -> tuple[str, str]:
    """The first attribute of the model's modules that is such an object, by its dotted name, and its runtime."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if runtime := runtime_of(value):
                return f"{name}.{attribute}" if name else attribute, runtime
    return "", ""
