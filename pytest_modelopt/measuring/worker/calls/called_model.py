"""A model as the project's own function calls it: the model with its `call:`, in the place of the model alone."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, ClassVar

from torch import nn

from pytest_modelopt.optimizing.modules.nested_values import attributes

_DEPTH = 3
"""Of objects within objects, in which modules of a plain object are looked for."""
_NO_PIPELINES = (type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial)


class CalledModel(nn.Module):
    """What `calling.call` calls instead of `alone`, which is what is shipped: neither this nor the function is."""

    takes_inputs_whole: ClassVar[bool] = True
    """As `calling.on` asks: the function gets the inputs as the data gave them, whatever their form."""

    def __init__(self, alone: Any, function: Callable[[Any, Any], Any], name: str) -> None:
        """`alone`: a module, or any object that holds some. `name`: of the function, for messages."""
        super().__init__()
        self._plain = None if isinstance(alone, nn.Module) else alone
        self.seen: nn.Module = alone if isinstance(alone, nn.Module) else modules_in(alone)
        """The model; of a plain object its modules, under the names of its attributes."""
        self.function, self.name = function, name
        self.training = False

    @property
    def alone(self) -> Any:
        """The model without its call."""
        return self.seen if self._plain is None else self._plain

    def forward(self, inputs: Any) -> Any:
        return self.function(self.alone, inputs)


def alone(model: nn.Module) -> Any:
    """The model without its call: what is shipped, and what the function of `call:` gets."""
    return model.alone if isinstance(model, CalledModel) else model


def seen(model: nn.Module) -> nn.Module:
    """The same as a module."""
    return model.seen if isinstance(model, CalledModel) else model


def modules_in(value: Any, depth: int = _DEPTH) -> nn.Module:
    """The modules that an object holds in its attributes, or in those of objects in there, under these names."""
    found = nn.Module()
    found.training = False
    for name, held in attributes(value).items():
        if not isinstance(held, (nn.Module, *_NO_PIPELINES)) and depth and attributes(held):
            held = modules_in(held, depth - 1)
            if not held._modules:
                continue
        if isinstance(held, nn.Module):
            found.add_module(name, held)
    return found
