"""A sum of what a variant holds, by which it is known again: modules, their settings, and the bits of weights."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.installation import is_installed
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.optimizing.modules.tensor_digest import update_with_bytes
from pytest_modelopt.optimizing.runtimes.runtime_module import EngineModule, HoldsPrograms

MOST_BYTES = 2 * 1024**3
"""Of the numbers that are read: beyond, every k-th MiB of each tensor and its last one, with k so that they are no more
than about that. All of them would take some seconds for each GiB, and no training leaves a tensor's beginning alone."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""In the text of an object that stands in a tuple."""


def content_digest(model: nn.Module) -> str | None:
    """SHA-256 in hexadecimal, the same for the same model in every process; None for what another runtime holds.

    What keeps its weights to itself (packed layers, TorchScript, weights of torchao) comes in by what is saved of it.
    """
    if isinstance(model, (EngineModule, HoldsPrograms)):
        return None
    whole, inside = hashlib.sha256(), list[str]()
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(tuple(inside)):
            continue
        whole.update(f"{name}:{type(module).__module__}.{type(module).__qualname__}".encode())
        if _keeps_weights_to_itself(module):
            whole.update(size.saved_digest(module).encode())
            inside.append(f"{name}." if name else "")
        else:
            whole.update(f"{_attributes(module)};".encode())
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    step = max(1, math.ceil(sum(tensor.nbytes for _, tensor in tensors) / MOST_BYTES))
    for name, tensor in tensors:
        if name.startswith(tuple(inside)):
            continue
        whole.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.layout is torch.strided and not tensor.is_quantized and not hasattr(tensor, "__tensor_flatten__"):
            whole.update(f"{tensor.stride()};".encode())
            update_with_bytes(whole, tensor, step)
        else:
            whole.update(size.saved_digest(tensor).encode())
    return whole.hexdigest()


def sources_digest() -> str:
    """SHA-256 in hexadecimal of the project's own modules that are imported: a forward may change, and no weight."""
    whole = hashlib.sha256()
    for name in sorted(sys.modules):
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and not is_installed(file):
            with contextlib.suppress(OSError):
                whole.update(f"{name}:{hashlib.sha256(Path(file).read_bytes()).hexdigest()};".encode())
    return whole.hexdigest()


def is_packed(module: nn.Module) -> bool:
    """Whether torch's quantized engine runs it, with weights in a form of its own."""
    name = type(module).__module__
    unpacks = callable(getattr(module, "weight", None)) or hasattr(module, "get_weight")
    return name.startswith("torch.ao.nn") and "quantized" in name and unpacks


def _keeps_weights_to_itself(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or is_packed(module)


def _attributes(module: nn.Module) -> list[Any]:
    """What decides beside the weights how it runs: plain values, hooks, and a forward of its own."""
    kinds = (bool, int, float, str, tuple, type(None))
    plain = [(name, _ADDRESS.sub("", repr(value))) for name, value in vars(module).items() if isinstance(value, kinds)]
    hooks = (module._forward_pre_hooks, module._forward_hooks)
    return [*sorted(plain), *(len(each) for each in hooks), "forward" in vars(module)]
