"""The tensor meter: weights resident, plus the peak of everything torch's allocator hands out during one call.

Both parts repeat to the byte. The meter is a floor: buffers that MKL or OpenMP allocate for themselves bypass torch's
allocator. `parameters()` alone would be wrong: packed int8 weights are not parameters, tensor subclasses hide theirs,
and tied weights would count twice.
"""

from __future__ import annotations

import functools
import io
import types
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.utils import _pytree

from pytest_modelopt.measuring.protocol import Memory
from pytest_modelopt.measuring.worker.memory import reachable
from pytest_modelopt.optimizing.modules.foreign_runtimes import runtime_of
from pytest_modelopt.optimizing.quantization import torch_ao


class Unaccounted(Exception):
    """Some of the model's memory cannot be read; the message names what."""


class ForeignRuntime(Unaccounted):
    """The model holds an object of a runtime that allocates for itself; `runtime` names it."""

    def __init__(self, runtime: str) -> None:
        super().__init__(f"{runtime} keeps its weights where torch's allocator does not see them")
        self.runtime = runtime


def weights_bytes(model: nn.Module) -> int:
    """Bytes of the memory that the model keeps: parameters, buffers, packed weights, and the numbers in any other
    attribute: tensors, arrays, raw bytes. Also what it shares with others: attributes of the project's classes, global
    variables that their code names, entries of caches.

    Memory that several of them share counts once: ties, views, slices of one storage.

    Raises:
        ForeignRuntime: the model holds a session, a compiled model or an interpreter of another runtime.
        Unaccounted: something else holds weights in a form that cannot be counted; it is never taken for zero.
    """
    return Walk(model).total_bytes()


# Objects of these packages refer to the model's modules again, or to what they were traced and converted from, which is
# not shipped: graphs and their nodes, quantization settings.
_NOT_OF_THE_MODEL = ("torch.fx", "torch.ao", "torch._", "torch.jit", "torch.utils.hooks", "torch.export")
_NO_TENSORS = (str, int, float, complex, bool, types.ModuleType, types.BuiltinFunctionType)


class Walk:
    """Everything that a model reaches. What is visited is kept alive: a freed object's address could come again."""

    def __init__(self, model: Any, *, passes_runtimes: bool = False) -> None:
        """`passes_runtimes`: an object of another runtime does not end it, though nothing in there counts."""
        self._ranges: list[tuple[int, int, str]] = []
        self._archived = 0
        self._seen: dict[int, Any] = {}
        self._passes_runtimes = passes_runtimes
        self._pending: list[Any] = [model]
        self._shared: list[Any] = []
        self._raw: set[tuple[int, int]] = set()
        self.packed: list[torch.ScriptObject] = []
        """Weights that kernels have packed for themselves, in a size that only they know."""
        self.of_runtimes: list[Any] = []
        """Objects of other runtimes, where they do not end it."""
        self._visit_pending()
        self.own_bytes = self.total_bytes()
        """Without what it shares with others of its class, and what the code of the project holds."""
        self._pending = self._shared
        self._visit_pending()

    def total_bytes(self, kind_of_device: str | None = None) -> int:
        """The union of all address ranges: two storages may overlap, where one was made from the other's memory.

        Of all devices, or of one kind; what TorchScript keeps to itself counts for all only.
        """
        total = union_bytes(self.ranges(kind_of_device))
        return total if kind_of_device else total + self._archived

    @property
    def tensor_bytes(self) -> int:
        """Without raw memory and other libraries' arrays."""
        ranges = ((start, stop) for start, stop, _ in self._ranges if (start, stop) not in self._raw)
        return union_bytes(sorted(ranges)) + self._archived

    def ranges(self, kind_of_device: str | None = None) -> list[tuple[int, int]]:
        """(start, stop) of all memory that was found, sorted."""
        return sorted((start, stop) for start, stop, kind in self._ranges if kind_of_device in (None, kind))

    def _visit_pending(self) -> None:
        while self._pending:
            value = self._pending.pop()
            if value is not None and not isinstance(value, _NO_TENSORS) and id(value) not in self._seen:
                self._seen[id(value)] = value
                runtime = runtime_of(value)
                if not runtime:
                    self._visit(value)
                elif not self._passes_runtimes:
                    raise ForeignRuntime(runtime)
                else:
                    self.of_runtimes.append(value)

    def _visit(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._visit_tensor(value)
        elif isinstance(value, torch.UntypedStorage):
            self._ranges.append((value.data_ptr(), value.data_ptr() + value.nbytes(), value.device.type))
        elif isinstance(value, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
            self._visit_script(value)
        elif isinstance(value, torch.ScriptObject):
            self._visit_packed(value)
        elif isinstance(value, type):
            self._shared += reachable.of_class(value)
        elif isinstance(value, Mapping):
            self._pending += value.values()
            self._shared.append(type(value))
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            self._pending += value
        elif isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
            self._pending += [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
            self._pending += vars(value).values()
            self._shared += reachable.of_function(value)
        elif isinstance(value, types.MethodType):
            self._pending += [value.__self__, value.__func__]
        elif isinstance(value, functools.partial):
            self._pending += [value.func, *value.args, *value.keywords.values()]
        elif (behind := reachable.of_descriptor(value)) is not None:
            self._pending += behind
            self._pending += getattr(value, "__dict__", {}).values()
        elif not isinstance(value, nn.Module) and (memory := reachable.memory_of(value)) is not None:
            self._ranges += [(start, start + size, "cpu") for start, size in memory.ranges]
            self._raw |= {(start, start + size) for start, size in memory.ranges}
            self._pending += memory.others
        elif isinstance(value, nn.Module) or not type(value).__module__.startswith(_NOT_OF_THE_MODEL):
            self._pending += getattr(value, "__dict__", {}).values()
            self._pending += _slots(value)
            self._shared.append(type(value))

    def _visit_tensor(self, tensor: torch.Tensor) -> None:
        if hasattr(tensor, "__tensor_flatten__"):  # a subclass that wraps other tensors (torchao's, for one)
            names, _ = tensor.__tensor_flatten__()
            self._pending += [getattr(tensor, name) for name in names]
            return
        if tensor.layout is torch.sparse_coo:
            self._pending += [tensor._indices(), tensor._values()]
        elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            self._pending += [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            self._pending += [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
        elif tensor.is_mkldnn:  # packed by inductor's freezing: more bytes than the numbers in it, padding included
            start, size = _mkldnn_memory(tensor)
            self._ranges.append((start, start + size, tensor.device.type))
        elif tensor.layout is not torch.strided or tensor.device.type == "meta":
            raise Unaccounted(f"a tensor of layout {tensor.layout} on {tensor.device} has no storage to count")
        else:
            self._pending.append(tensor.untyped_storage())
            if tensor.is_quantized and tensor.qscheme() in (
                torch.per_channel_affine,
                torch.per_channel_affine_float_qparams,
            ):
                self._pending += [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
        if tensor.is_leaf and tensor.grad is not None:
            self._pending.append(tensor.grad)

    def _visit_script(self, value: Any) -> None:
        """Its parameters and buffers, which other modules may share, and what else its archive holds."""
        tensors = [*value.parameters(), *value.buffers()] if isinstance(value, nn.Module) else []
        self._pending += tensors
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        self._archived += max(0, _archived_tensor_bytes(value) - sum(storages.values()))

    def _visit_packed(self, value: Any) -> None:
        """Packed weights: their serialized state is the unpacked weight, its scales and the bias."""
        try:
            state = value.__getstate__()
            self._pending.append(state)
            if any(isinstance(leaf, torch.Tensor) for leaf in _pytree.tree_leaves(state)):  # else those in it have them
                self.packed.append(value)
        except Exception as error:
            raise Unaccounted(f"the weights packed in a {value._type()} cannot be read: {error}") from error


class CudaMeter:
    """Memory on a GPU: what is asked of torch's allocator there, weights included, in this process alone.

    To be made after the inputs and before the model are on the device: what is there then belongs to neither. It counts
    bytes as they were requested: the blocks in which the allocator hands them out depend on what was freed before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before_model = self._requested("current")

    def measure(self, call: Callable[[], object], model: nn.Module) -> Memory:
        """Weights, and the peak of one `call()` beside them, which must have run before.

        cuBLAS allocates its workspace in the first call; it is part of the peak.

        Raises:
            Unaccounted: the peak does not even hold the weights, so some of them came before the meter was made.
        """
        on_device = Walk(model).total_bytes("cuda")
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        call()
        torch.cuda.synchronize(self._device)
        peak = self._requested("peak") - self._before_model
        if peak < on_device:
            raise Unaccounted(
                f"{on_device:,} bytes of weights lie on the GPU but its allocator counts {peak:,} since the model was "
                "made: some of them were there before, outside the factory"
            )
        reserved = torch.cuda.max_memory_reserved(self._device)
        return Memory(Walk(model).total_bytes(), peak - on_device, reserved_bytes=reserved)

    def _requested(self, which: str) -> int:
        """Bytes in use, now ('current') or at most since the last reset ('peak'); 0 before anything was allocated."""
        return int(torch.cuda.memory_stats(self._device).get(f"requested_bytes.all.{which}", 0))


def bytes_beside(value: Any, model: nn.Module) -> int:
    """Of all memory that `value` holds, without what belongs to the model: shared memory counts once."""
    own = Walk(model, passes_runtimes=True).ranges()
    return union_bytes(sorted([*own, *Walk(value).ranges()])) - union_bytes(own)


def union_bytes(ranges: Iterable[tuple[int, int]]) -> int:
    """Of sorted (start, stop)."""
    total = reached = 0
    for start, stop in ranges:
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _mkldnn_memory(tensor: torch.Tensor) -> tuple[int, int]:
    """(address, bytes) of a tensor in a layout of oneDNN's or MKL's own."""
    operators: Any = torch.ops.mkldnn
    try:
        return int(operators.data_ptr(tensor)), int(operators._nbytes(tensor))
    except (AttributeError, RuntimeError) as error:
        raise Unaccounted(f"a tensor of layout {tensor.layout} does not say where it lies: {error}") from error


def _archived_tensor_bytes(script: Any) -> int:
    """Bytes of the tensors of a TorchScript module or function, constants and packed weights included.

    Its attributes are out of Python's reach: what it saves is what it holds.
    """
    buffer = io.BytesIO()
    try:
        with torch_ao.quiet():
            torch.jit.save(script, buffer)
        with zipfile.ZipFile(buffer) as archive:
            entries = [
                entry for entry in archive.infolist() if {"data", "constants"} & set(entry.filename.split("/")[1:-1])
            ]
            return sum(entry.file_size for entry in entries)
    except Exception as error:
        raise Unaccounted(f"the tensors of a {type(script).__name__} cannot be read: {error}") from error


def _slots(value: Any) -> list[Any]:
    names = [name for kind in type(value).__mro__ for name in _as_tuple(kind.__dict__.get("__slots__", ()))]
    return [getattr(value, name) for name in names if name not in ("__dict__", "__weakref__") and hasattr(value, name)]


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # a variable that was never assigned
        return True


def call_peak_bytes(call: Callable[[], object]) -> int:
    """Peak of what torch's CPU allocator has handed out at any moment of one `call()`, in bytes.

    From the allocator's own events, which also see the scratch memory of kernels and the float weights that
    weight-only quantization rebuilds at every call. The call must have run before: first calls allocate caches.
    Only what the calling thread and torch's own threads allocate is seen, not other Python threads.
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
