"""Nested values: tensors, texts, numbers and None in lists, tuples, dicts, dataclasses and other objects.

torch's pytree opens the containers that it knows. What it takes for a leaf and is none (a dataclass, a mapping of a
class of its own, an object with attributes) is opened here, and not registered with it: that would change what torch
makes of the project's classes in the whole process.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PLAIN = (str, bytes, bool, int, float, complex, type(None), Enum)
"""Leaves beside tensors and arrays that are data, and the same in every process."""
_SHOWN = 6
_CLOSED = (*PLAIN, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def is_array(value: Any) -> bool:
    """Whether this is an array of numpy, which need not be there."""
    return type(value).__module__ == "numpy" and hasattr(value, "nbytes") and hasattr(value, "shape")


def held(value: Any) -> dict[Any, Any] | None:
    """What a leaf of pytree's holds, by key, position or attribute; None for what is no container."""
    import torch

    if isinstance(value, (torch.Tensor, torch.nn.Module, torch.Size, *_CLOSED)) or is_array(value):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    named = {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}
    found = {**named, **attributes(value)}
    return found if found or is_dataclass(value) else None


def attributes(value: Any) -> dict[str, Any]:
    """Of an object, in its dict and in slots."""
    return {**_slots(value), **getattr(value, "__dict__", {})}


def _slots(value: Any) -> dict[str, Any]:
    """The attributes that a class names in `__slots__`, those of the standard library aside: a path keeps texts of
    itself there."""
    if type(value).__module__.partition(".")[0] in sys.stdlib_module_names:
        return {}
    named = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for slots in named for name in ((slots,) if isinstance(slots, str) else slots)]
    return {name: getattr(value, name) for name in names if name[:2] != "__" and hasattr(value, name)}


def form(value: Any, around: tuple[int, ...] = ()) -> Any:
    """What a nest is without its leaves: kinds of containers, keys and names of attributes, those that were given to a
    tensor with them. To be compared by `==`."""
    from torch.utils import _pytree

    found, structure = _pytree.tree_flatten(value)
    inner = [(leaf, {} if id(leaf) in around else _named(leaf)) for leaf in found]
    return structure, [
        (place, name, form(part, (*around, id(leaf))))
        for place, (leaf, parts) in enumerate(inner)
        for name, part in parts.items()
    ]


def _named(leaf: Any) -> dict[Any, Any]:
    import torch

    return vars(leaf) if isinstance(leaf, torch.Tensor) else held(leaf) or {}


def rebuilt(value: Any, new: Mapping[Any, Any]) -> Any:
    """A container like `value` with the parts `new`, under the same names."""
    if isinstance(value, (tuple, list)):
        return type(value)(*new.values()) if hasattr(value, "_fields") else type(value)(new.values())
    made = copy.copy(value)
    for name, part in new.items():
        if isinstance(value, Mapping):
            made[name] = part
        else:
            object.__setattr__(made, name, part)  # a frozen dataclass is copied, too
    return made


def leaves(value: Any, around: tuple[int, ...] = ()) -> Iterator[Any]:
    """All that is no container, in order. An object that holds itself is not opened again (`around`)."""
    from torch.utils import _pytree

    for leaf in _pytree.tree_leaves(value):
        inner = None if id(leaf) in around else held(leaf)
        if inner is None:
            yield leaf
        else:
            for part in inner.values():
                yield from leaves(part, (*around, id(leaf)))


def mapped(value: Any, change: Callable[[Any], Any], around: tuple[int, ...] = ()) -> Any:
    """The same nest with other leaves; the containers are copied, objects only where something in them changes."""
    from torch.utils import _pytree

    def each(leaf: Any) -> Any:
        inner = None if id(leaf) in around else held(leaf)
        if inner is None:
            return change(leaf)
        after = {name: mapped(part, change, (*around, id(leaf))) for name, part in inner.items()}
        is_same = all(after[name] is part for name, part in inner.items())
        return leaf if is_same else rebuilt(leaf, after)

    return _pytree.tree_map(each, value)


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in it, in order."""
    import torch

    return [leaf for leaf in leaves(value) if isinstance(leaf, torch.Tensor)]


def in_words(value: Any) -> str:
    """Shapes and types of the first leaves: '(2, 3) float32, a str'."""
    import torch

    told = [
        f"{tuple(leaf.shape)} {str(leaf.dtype)[6:]}" if isinstance(leaf, torch.Tensor) else f"a {type(leaf).__name__}"
        for leaf in leaves(value)
    ]
    return ", ".join(told[:_SHOWN]) + (f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")


# --- examples in a batch ---------------------------------------------------------------------------------------------


def sizes(batch: Any) -> set[int]:
    """How many entries the parts of a batch have along their examples: the first dimensions of tensors, the lengths of
    lists. Tuples, dicts and objects are opened; texts, numbers and None belong to all examples and say nothing."""
    return {_size(part) for _, part in columns(batch) if not isinstance(part, PLAIN)}


def columns(batch: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of a batch that are cut along the examples, tensors and lists, and those that belong to all of them,
    each with its place: keys, positions and attributes with dots between them."""
    inner = None if isinstance(batch, list) else _opened(batch)
    if inner is None:
        yield place, batch
        return
    for name, part in inner.items():
        yield from columns(part, f"{place}.{name}" if place else str(name))


def cut(batch: Any, rows: slice | int) -> Any:
    """Some examples of a batch, or one without its batch dimension, in the form of the batch."""
    import torch

    if isinstance(batch, (torch.Tensor, list)):
        return batch[rows]
    inner = _opened(batch)
    return batch if inner is None else rebuilt(batch, {name: cut(part, rows) for name, part in inner.items()})


def joined(batches: list[Any], made: dict[Any, Any] | None = None) -> Any:
    """Several batches of one form as one, in memory of its own. `made`: parts that were joined before, by their places.

    Raises:
        RuntimeError, ValueError: they do not fit together.
    """
    import torch

    first, made = batches[0], {} if made is None else made
    if isinstance(first, torch.Tensor):
        same = tuple(map(_place, batches))
        if same not in made:
            made[same] = torch.cat(batches)
        return made[same]
    if isinstance(first, list):
        return [copy.deepcopy(entry) for batch in batches for entry in batch]
    opened = [_opened(batch) for batch in batches]
    if opened[0] is None:
        if any(batch != first for batch in batches):
            raise ValueError(f"{first!r} belongs to some of them and another value to others")
        return first
    if any(inner is None or inner.keys() != opened[0].keys() for inner in opened):
        raise ValueError("they do not hold the same")
    return rebuilt(first, {name: joined([inner[name] for inner in opened if inner], made) for name in opened[0]})


def _place(tensor: torch.Tensor) -> Any:
    """Equal for tensors that are the same numbers in memory, whatever objects they are."""
    import torch

    if tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
        return id(tensor)
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _opened(batch: Any) -> dict[Any, Any] | None:
    if isinstance(batch, (tuple, dict)):
        return dict(batch) if isinstance(batch, dict) else dict(enumerate(batch))
    return held(batch)


def _size(part: Any) -> int:
    return 0 if getattr(part, "ndim", 1) == 0 else len(part)
