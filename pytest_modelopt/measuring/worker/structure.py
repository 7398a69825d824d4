"""The structure of what models return: tensors in tuples, lists, dicts, dataclasses and other objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def is_array(value: Any) -> bool:
    """Whether this is an array of numpy, which need not be there."""
    return type(value).__module__ == "numpy" and hasattr(value, "nbytes") and hasattr(value, "shape")


def is_sequence(value: Any) -> bool:
    """Whether this is a plain list or tuple: the fields of a named one have meanings of their own."""
    return isinstance(value, list) or type(value) is tuple


def parts(value: Any) -> dict[Any, Any]:
    """What `value` holds: by key, position, or attribute; nothing for what is no container."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if isinstance(value, (torch.Tensor, type)) or is_array(value):
        return {}
    held = {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}
    return {**held, **getattr(value, "__dict__", {})}


def rebuilt(value: Any, new: Mapping[Any, Any]) -> Any:
    """A container like `value` with the parts `new`, under the same names."""
    if isinstance(value, (tuple, list)):
        return type(value)(*new.values()) if hasattr(value, "_fields") else type(value)(new.values())
    made = copy.copy(value)
    for name, part in new.items():
        if isinstance(value, dict):
            made[name] = part
        else:
            object.__setattr__(made, name, part)  # a frozen dataclass is copied, too
    return made


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with other tensors and arrays; what holds them is copied."""
    if isinstance(value, torch.Tensor) or is_array(value):
        return change(value)
    before = parts(value)
    after = {name: mapped(part, change) for name, part in before.items()}
    is_same = all(after[name] is part for name, part in before.items())
    return value if is_same and not isinstance(value, (list, dict)) else rebuilt(value, after)


def own(value: Any) -> Any:
    """A copy to keep: some models write every answer into the same tensor."""
    return mapped(value, lambda tensor: tensor.clone() if isinstance(tensor, torch.Tensor) else tensor.copy())


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model returned, and its arrays of numbers as tensors."""
    if isinstance(value, torch.Tensor):
        yield value
    elif is_array(value):
        if value.dtype.kind in "biufc":
            yield torch.as_tensor(value)
    else:
        for part in parts(value).values():
            yield from tensors_in(part)


def texts_in(value: Any) -> Iterator[str]:
    """Decoded text, which a model may return in place of tensors."""
    if isinstance(value, str):
        yield value
    else:
        for part in parts(value).values():
            yield from texts_in(part)
