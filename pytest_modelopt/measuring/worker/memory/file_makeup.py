"""What a variant's file is made of, and in which layer's call its memory reaches the peak.

Both take time, so they are asked only where one of these figures is worse than the original's, or memory breaks a
limit.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import profile, record_function
from torch.utils import _pytree

from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import tensor_meter
from pytest_modelopt.optimizing.describe import author_name, type_name
from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule
from pytest_modelopt.results.observations import Makeup

_LABEL = "modelopt layer: "
_OWN = frozenset(vars(nn.Module()))
_RAW = (torch.Tensor, torch.ScriptObject, bytes, bytearray, memoryview)


def makeup(model: nn.Module, call: Callable[[], object], peak_bytes: int | None) -> Makeup:
    """`call` is a measured call of the model, and `peak_bytes` the peak that was measured of one; None: of no use."""
    tensors, operations = _tensors(model), Counter(_operations(model))
    for name, module in model.named_modules():
        if isinstance(module, RuntimeModule):
            numbers, by_layer = module.contents()
            tensors[author_name(f"{name}.program".lstrip("."))] = numbers
            operations.update(by_layer)
    peak_in, own = ("", 0) if peak_bytes is None else _peak_in(model, call, peak_bytes)
    other = 0
    with contextlib.suppress(Exception):  # of a model that cannot be saved there is no size to explain
        other = max(0, size.saved_bytes(model) - sum(tensors.values()))
    return Makeup(tensors, other, dict(operations), peak_in, own)


# --- the file --------------------------------------------------------------------------------------------------------


def _tensors(model: nn.Module) -> dict[str, int]:
    """Of each parameter, buffer and other attribute with numbers: what nothing before it has held."""
    found: dict[str, int] = {}
    ranges: list[tuple[int, int]] = []
    walks = []  # what they unpacked lives on: a freed address could come again
    for name, value in _named(model):
        walks.append(tensor_meter.Walk(value))
        before = tensor_meter.union_bytes(sorted(ranges))
        ranges += walks[-1].ranges()
        if own := tensor_meter.union_bytes(sorted(ranges)) - before:
            found[author_name(name)] = own
    return found


def _named(model: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
    for name, module in model.named_modules():
        is_script = isinstance(module, torch.jit.ScriptModule)  # whose object in C++ is the module once more
        for attribute, value in () if is_script else vars(module).items():
            if attribute not in _OWN and any(isinstance(leaf, _RAW) for leaf in _pytree.tree_leaves(value)):
                yield (
                    f"{name}.{attribute}".lstrip("."),
                    [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, _RAW)],
                )


def _operations(model: nn.Module) -> dict[str, int]:
    """Nodes of its graphs by the layer that they were traced from, '' for those of which nobody knows."""
    counts: Counter[str] = Counter()
    for module in model.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            layers = list((node.meta.get("nn_module_stack") or {}).values())
            path, kind = layers[-1] if layers else ("", "")
            name = str(path).removeprefix("L['self'].").removeprefix("L__self___") or "its own forward"
            counts[f"{name} ({str(getattr(kind, '__name__', kind)).rpartition('.')[2]})" if layers else ""] += 1
    return dict(counts)


# --- the peak --------------------------------------------------------------------------------------------------------


def _peak_in(model: nn.Module, call: Callable[[], object], peak_bytes: int) -> tuple[str, int]:
    """The innermost layer that was called when the most was in use, and what its call had asked for until then.

    Nothing where the peak of this call is another one than was measured: looking must not have changed it.
    """
    with _labelled(model), profile(profile_memory=True, use_kineto=True) as profiler:
        call()
    results = profiler.kineto_results
    events = results.events() if results is not None else []
    changes = sorted(((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"), key=lambda each: each[0])
    now = peak = at = 0
    for time, change in changes:
        now += change
        if now > peak:
            peak, at = now, time
    if peak != peak_bytes:
        return "", 0
    around = [(e.end_ns() - e.start_ns(), e.start_ns(), e.name()) for e in events if e.start_ns() <= at <= e.end_ns()]
    layers = sorted(each for each in around if each[2].startswith(_LABEL))
    if not layers:
        return "", 0
    length, start, label = layers[0]
    operators = sorted(each for each in around if "::" in each[2] and each[0] < length)
    within = f" in {operators[-1][2]}" if operators else ""
    own = sum(change for time, change in changes if start <= time <= at)
    return label.removeprefix(_LABEL) + within, max(0, own)


@contextlib.contextmanager
def _labelled(model: nn.Module) -> Iterator[None]:
    """Each call of a module stands in the profile under its name."""
    names = {
        module: f"{f'`{author_name(name)}`' if name else 'its own forward'} ({type_name(module)})"
        for name, module in model.named_modules()
    }
    original = nn.Module.__call__

    def calling(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with record_function(_LABEL + names[module]) if module in names else contextlib.nullcontext():
            return original(module, *args, **kwargs)

    nn.Module.__call__ = calling  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
