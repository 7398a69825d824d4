"""The tensor meter: weights resident, plus the peak of everything torch's allocator hands out during one call.

Both parts repeat to the byte. The meter is a floor: buffers that MKL or OpenMP allocate for themselves bypass torch's
allocator. `parameters()` alone would be wrong: packed int8 weights are not parameters, tensor subclasses hide theirs,
and tied weights would count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import profile


class Unaccounted(Exception):
    """Some of the model's memory cannot be read; the message names what."""


def weights_bytes(model: nn.Module) -> int:
    """Bytes of the unique storages that the model keeps: parameters, buffers, packed weights, other tensors it holds.

    Raises:
        Unaccounted: something holds weights in a form that cannot be counted; it is never taken for zero.
    """
    walk = _Walk()
    walk.visit(model)
    return walk.total_bytes()


class _Walk:
    """Collects every tensor reachable from a model. Tensors are kept alive: a freed one's address could come again."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._kept: list[Any] = []
        self._seen: set[int] = set()

    def total_bytes(self) -> int:
        storages = {}
        for tensor in self._tensors:
            storage = tensor.untyped_storage()
            if storage.nbytes():
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())

    def visit(self, value: Any) -> None:
        if value is None or isinstance(value, (str, bytes, int, float, complex, type)) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, torch.Tensor):
            self._visit_tensor(value)
        elif isinstance(value, torch.jit.ScriptModule):
            self.visit_all([*value.parameters(), *value.buffers()])
        elif isinstance(value, torch.ScriptObject):
            self._visit_script_object(value)
        elif isinstance(value, dict):
            self.visit_all(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            self.visit_all(value)
        elif isinstance(value, nn.Module) or not type(value).__module__.startswith(("torch.", "builtins")):
            # A module's tensors may sit in any attribute; so may those of a user's own object. torch's other objects
            # (graphs, hooks, observers' handles) refer to the same modules again.
            self.visit_all(getattr(value, "__dict__", {}).values())

    def visit_all(self, values: Iterable[Any]) -> None:
        for value in list(values):
            self.visit(value)

    def _visit_tensor(self, tensor: torch.Tensor) -> None:
        if hasattr(tensor, "__tensor_flatten__"):  # a subclass that wraps other tensors (torchao's, for one)
            names, _ = tensor.__tensor_flatten__()
            self.visit_all(getattr(tensor, name) for name in names)
            return
        if tensor.layout is torch.sparse_coo:
            self.visit_all([tensor._indices(), tensor._values()])
        elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            self.visit_all([tensor.crow_indices(), tensor.col_indices(), tensor.values()])
        elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            self.visit_all([tensor.ccol_indices(), tensor.row_indices(), tensor.values()])
        elif tensor.layout is not torch.strided or tensor.device.type == "meta":
            raise Unaccounted(f"a tensor of layout {tensor.layout} on {tensor.device} has no storage to count")
        else:
            self._tensors.append(tensor)
            if tensor.is_quantized and tensor.qscheme() in (
                torch.per_channel_affine,
                torch.per_channel_affine_float_qparams,
            ):
                self.visit_all([tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()])
        if tensor.is_leaf and tensor.grad is not None:
            self.visit(tensor.grad)

    def _visit_script_object(self, value: Any) -> None:
        """Packed weights: their serialized state is the unpacked weight, its scales and the bias."""
        try:
            state = value.__getstate__()
        except Exception as error:
            raise Unaccounted(f"the weights packed in a {value._type()} cannot be read: {error}") from error
        self.visit(state)


def call_peak_bytes(call: Callable[[], object]) -> int:
    """Peak of what torch's CPU allocator has handed out at any moment of one `call()`, in bytes.

    From the allocator's own events, which also see the scratch memory of kernels and the float weights that
    weight-only quantization rebuilds at every call. The call must have run before: first calls allocate caches.
    """
    with profile(profile_memory=True, use_kineto=True) as profiler:  # torch.profiler would import the whole compiler
        call()
    results = profiler.kineto_results
    if results is None:
        raise Unaccounted("torch's profiler returned no events")
    events = sorted(
        ((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"),
        key=lambda event: event[0],
    )
    now = peak = 0
    for _, change in events:
        now += change
        peak = max(peak, now)
    return peak
