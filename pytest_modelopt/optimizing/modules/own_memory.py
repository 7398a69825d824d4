"""Copies of tensors in memory of their own, as small as the tensors are: those that share memory share it as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.modules.nested_values import joined, mapped, tensors

if TYPE_CHECKING:
    import torch

_ALIGNED = 64


def in_own_memory(value: Any) -> Any:
    """A nest with copies of its tensors, on the CPU. A view is copied without the rest of what it is a view of."""
    import torch

    copies: dict[int, torch.Tensor] = {}
    for together in _sharing(tensors(value)):
        if len(together) > 1:
            copies |= _copied_together(together)
    return mapped(
        value,
        lambda leaf: copies.get(id(leaf), leaf.detach().cpu().clone()) if isinstance(leaf, torch.Tensor) else leaf,
    )


def joined_in_own_memory(batches: list[Any]) -> Any:
    """Several batches of one form as one. What shares memory within a single batch shares it as before.

    Raises:
        RuntimeError, ValueError: they do not fit together.
    """
    return in_own_memory(batches[0]) if len(batches) == 1 else joined(batches)


def _sharing(found: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Groups of tensors whose ranges of memory overlap, each tensor once."""
    import torch

    plain = [
        tensor
        for tensor in {id(tensor): tensor for tensor in found}.values()
        if tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.numel()
        if not (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
    ]
    group: list[torch.Tensor] = []
    reached = -1
    for tensor in sorted(plain, key=lambda each: _range(each)[0]):
        start, stop = _range(tensor)
        if start >= reached and group:
            yield group
            group = []
        group.append(tensor)
        reached = max(reached, stop)
    yield group


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    """(first address, the one after the last)."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _copied_together(group: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    import torch

    storage = max((tensor.untyped_storage() for tensor in group), key=lambda each: each.nbytes())
    start = min(_range(tensor)[0] for tensor in group) - storage.data_ptr()
    start -= start % _ALIGNED  # so that the place of each is a whole number of its elements again
    stop = max(_range(tensor)[1] for tensor in group) - storage.data_ptr()
    if start < 0 or stop > storage.nbytes():  # memory of others, such as an array, which each tensor holds by itself
        return {}
    memory = torch.empty(0, dtype=torch.uint8).set_(storage, start, (stop - start,), (1,)).clone().untyped_storage()
    first = storage.data_ptr() + start
    return {
        id(tensor): torch.empty(0, dtype=tensor.dtype).set_(
            memory, (tensor.data_ptr() - first) // tensor.element_size(), tensor.shape, tensor.stride()
        )
        for tensor in group
    }
