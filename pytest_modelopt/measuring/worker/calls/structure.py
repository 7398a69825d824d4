"""The structure of what models return: tensors in tuples, lists, dicts, dataclasses and other objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from pytest_modelopt.optimizing.modules.nested_values import held, is_array, leaves, rebuilt
from pytest_modelopt.optimizing.modules.nested_values import mapped as mapped_nest

__all__ = ["is_array", "is_sequence", "mapped", "own", "parts", "rebuilt", "tensors_in", "texts_in"]


def is_sequence(value: Any) -> bool:
    """Whether this is a plain list or tuple: the fields of a named one have meanings of their own."""
    return isinstance(value, list) or type(value) is tuple


def parts(value: Any) -> dict[Any, Any]:
    """What `value` holds: by key, position, or attribute; nothing for what is no container."""
    return held(value) or {}


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with other tensors and arrays; what holds them is copied."""
    return mapped_nest(value, lambda leaf: change(leaf) if isinstance(leaf, torch.Tensor) or is_array(leaf) else leaf)


def own(value: Any) -> Any:
    """A copy to keep: some models write every answer into the same tensor."""
    return mapped(value, lambda tensor: tensor.clone() if isinstance(tensor, torch.Tensor) else tensor.copy())


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a model returned, and its arrays of numbers as tensors."""
    for leaf in leaves(value):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif is_array(leaf) and leaf.dtype.kind in "biufc":
            yield torch.as_tensor(leaf)


def texts_in(value: Any) -> Iterator[str]:
    """Decoded text, which a model may return in place of tensors."""
    yield from (leaf for leaf in leaves(value) if isinstance(leaf, str))
