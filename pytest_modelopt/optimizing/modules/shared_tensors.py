"""Modules that a model holds under more than one name, and tensors that share their numbers in memory.

Two tensors share what their elements have in common, whatever objects they are: one parameter in two modules, two
parameters over one storage, views and slices of it. To lie in one storage is not enough: cuDNN lays all weights of a
recurrent layer into one, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.modules.uncompiled import is_dynamo_here

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_ITEMS = 10_000
MOST_LISTS_WITHIN = 4


def held(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a tensor class wraps (torchao's hold int8 values and scales); of any other, itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in held(getattr(tensor, name))]


def same_view(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that are the same numbers in the same form, whatever objects they are."""
    if _range(tensor) is None:
        return id(tensor)
    return str(tensor.device), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def shared_bytes(one: torch.Tensor, other: torch.Tensor) -> int:
    """Bytes of the elements that both tensors hold in the same place of memory."""
    import torch

    total = 0
    for a in held(one):
        for b in held(other):
            place, other_place = _range(a), _range(b)
            if place is None or other_place is None or place[0] != other_place[0]:
                continue
            start, stop = max(place[1], other_place[1]), min(place[2], other_place[2])
            if start >= stop:
                continue
            size, first = a.element_size(), min(place[1], other_place[1])
            if (a.is_contiguous() and b.is_contiguous()) or size != b.element_size():
                total += stop - start
                continue
            marks = torch.zeros((max(place[2], other_place[2]) - first) // size, dtype=torch.bool)
            marks.as_strided(a.shape, a.stride(), (place[1] - first) // size).fill_(True)
            theirs = torch.zeros_like(marks)
            theirs.as_strided(b.shape, b.stride(), (other_place[1] - first) // size).fill_(True)
            total += int((marks & theirs).sum()) * size
    return total


def sharing(tensors: Sequence[torch.Tensor]) -> Iterator[list[int]]:
    """Positions of tensors that share numbers, group by group, each in order; those that share none are left out."""
    places = sorted(
        (*place, position)
        for position, tensor in enumerate(tensors)
        for part in held(tensor)
        if (place := _range(part)) is not None
    )
    group_of = list(range(len(tensors)))
    active: list[tuple[str, int, int, int]] = []
    for device, start, stop, position in places:
        active = [each for each in active if each[0] == device and each[2] > start]
        for *_, other in active:
            if group_of[other] != group_of[position] and shared_bytes(tensors[other], tensors[position]):
                old, new = group_of[position], group_of[other]
                group_of = [new if group == old else group for group in group_of]
        active.append((device, start, stop, position))
    groups: dict[int, list[int]] = {}
    for position, group in enumerate(group_of):
        groups.setdefault(group, []).append(position)
    yield from (positions for positions in groups.values() if len(positions) > 1)


def _range(tensor: torch.Tensor) -> tuple[str, int, int] | None:
    """Device and addresses, the last one excluded; None for tensors without elements or a storage of their own."""
    import torch

    if tensor.layout is not torch.strided or tensor.device.type == "meta" or not tensor.numel():
        return None
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def holders(model: nn.Module) -> dict[int, set[nn.Module]]:
    """For each parameter, by id, all modules that hold some of its numbers, as parameters or buffers."""
    from torch.nn.parameter import is_lazy

    owned = [
        (module, tensor)
        for module in model.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
        if tensor is not None and not is_lazy(tensor)
    ]
    found: dict[int, set[nn.Module]] = {id(tensor): {module} for module, tensor in owned}
    for positions in sharing([tensor for _, tensor in owned]):
        modules = {owned[position][0] for position in positions}
        for position in positions:
            found[id(owned[position][1])] |= modules
    return found


def held_beside(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that a model holds and that are no parameters, by name: buffers, attributes, and what is in lists there.

    What a reparametrization of torch makes anew for each call is none of them.
    """
    from torch import nn
    from torch.nn.parameter import is_lazy

    seen = {id(parameter) for parameter in model.parameters()}
    of_any_module = vars(nn.Module())
    for prefix, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in of_any_module}
        for name, value in (*module._buffers.items(), *own.items()):
            if f"{name}_orig" in module._parameters:
                continue
            for full_name, tensor in _tensors_in(value, f"{prefix}.{name}" if prefix else name):
                if id(tensor) not in seen and not is_lazy(tensor):
                    seen.add(id(tensor))
                    yield full_name, tensor


def _tensors_in(value: object, name: str, depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or those in lists, tuples and dicts; a vocabulary of many words is not searched."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and len(value) <= MOST_ITEMS and depth < MOST_LISTS_WITHIN:
        keys = value.keys() if isinstance(value, dict) else range(len(value))
        items = value.values() if isinstance(value, dict) else value
        for position, (key, item) in enumerate(zip(keys, items, strict=True)):
            word = key if isinstance(key, str) and key.isidentifier() else position  # a dot would part the name
            yield from _tensors_in(item, f"{name}[{word}]", depth + 1)


def tied_parameters(model: nn.Module) -> set[int]:
    """`id` of every parameter that several modules hold as one object.

    Two parameters over one storage do not count: what replaces one of them leaves the other whole, and that the model
    then holds the numbers twice is told by coverage and by the doctor.
    """
    owners: dict[int, set[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(module)
    return {key for key, modules in owners.items() if len(modules) > 1}


def replace_modules(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace modules under all their names, the model itself included; what was shared stays shared.

    `replacement` is asked once for each module and answers None to keep it. A replaced module's children are not asked.
    """
    made: dict[int, nn.Module] = {}
    kept: set[int] = set()

    def visit(module: nn.Module) -> nn.Module:
        if id(module) in made:
            return made[id(module)]
        if id(module) in kept:
            return module
        new = replacement(module)
        if new is not None:
            originals.append(module)
            made[id(module)] = new
            return new
        kept.add(id(module))
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = visit(child)
                if module._modules[name] is not child:
                    _bind_anew(module)
        return module

    originals: list[nn.Module] = []  # kept alive, so that no id is used twice
    return visit(model)


def _bind_anew(module: nn.Module) -> None:
    """Let what torch.compile has made of a module that was replaced call the new one: its forward is bound to it."""
    if not is_dynamo_here():
        return
    from torch._dynamo.eval_frame import OptimizedModule

    if isinstance(module, OptimizedModule):
        module._initialize()
        module._torchdynamo_orig_callable = module._orig_mod.forward  # it would keep the old weights alive
