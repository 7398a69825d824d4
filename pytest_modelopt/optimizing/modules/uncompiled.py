"""A model without torch.compile: compiled code hides its modules, and torch.fx traces neither modules nor functions
that were compiled."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

HOOKED_TWICE = r"Using `torch\.compile\(module\)` when there are global hooks on modules"
"""How torch's warning begins that hooks are called for the wrapped module and the wrapper: both have one name here."""


@contextlib.contextmanager
def step_by_step() -> Iterator[None]:
    """Whatever torch.compile has wrapped runs as if it had not."""
    if not is_dynamo_here():
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=HOOKED_TWICE)
        yield


def is_dynamo_here() -> bool:
    """To import it takes seconds, and where nobody has, nothing is compiled."""
    return "torch._dynamo.eval_frame" in sys.modules


def uncompiled(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The model in which each module that torch.compile has wrapped stands for itself, and a note if there was any."""
    if not is_dynamo_here():
        return model, ()
    from torch._dynamo.eval_frame import OptimizedModule

    modules = list(model.modules())
    if not any(isinstance(module, OptimizedModule) for module in modules):
        return model, ()

    def bare(module: nn.Module) -> nn.Module:
        while isinstance(module, OptimizedModule):
            module = module._orig_mod
        return module

    for module in modules:
        module._modules.update({name: bare(child) for name, child in module._modules.items() if child is not None})
    return bare(model), ("modules that torch.compile had wrapped run uncompiled in the variant: torch.fx traced it",)


def advice(error: Exception) -> str:
    """What to do where the model calls a function that torch.compile has made; '' for any other error of torch.fx."""
    if "dynamo-optimized function" not in str(error):
        return ""
    return (
        ": it calls a function that torch.compile has made; leave that out in the factory, and compile where it serves"
    )
