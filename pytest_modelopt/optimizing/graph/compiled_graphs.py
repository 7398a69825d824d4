"""Which parts of a model torch.compile gets into its graphs, and where in the user's code it leaves them."""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import weight_owners

if TYPE_CHECKING:
    from torch import fx, nn

OPAQUE = frozenset({"_transformer_encoder_layer_fwd", "_native_multi_head_attention"})
"""torch's fused paths: whole layers in one operator, which a compiler can only call as it is."""


LARGEST_COUNT = 64
"""Graphs of one function. Torch's own limit is 8, after which it goes on uncompiled without an error: a block with a
break in it, 12 times in a model, is soon beyond that."""


@contextlib.contextmanager
def limit_that_is_told() -> Iterator[None]:
    """While torch.compile works: beyond the limit it raises FailOnRecompileLimitHit."""
    import torch._dynamo.config

    config: Any = torch._dynamo.config
    word = "recompile" if hasattr(config, "recompile_limit") else "cache_size"  # the older name
    fail = "fail_on_recompile_limit_hit" if word == "recompile" else "fail_on_cache_limit_hit"
    with config.patch({f"{word}_limit": LARGEST_COUNT, fail: True}):
        yield


@dataclass(frozen=True)
class Captured:
    """What torch.compile traced in one call of a model."""

    graphs: int
    breaks: tuple[str, ...]
    """Why it could not trace on, each with the line of the user's code where it is known."""
    traced: frozenset[str]
    """Names of the modules whose work is in the graphs."""
    opaque: frozenset[str]
    """Names of the modules with weights that are in the graphs as a part of one closed operator only."""


def entry(model: nn.Module) -> Any:
    """What torch.compile is to be given for `model`: it calls hooks of the outermost module outside of its graph."""
    if not (model._forward_hooks or model._forward_pre_hooks):
        return model

    def call_with_hooks(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    return call_with_hooks


def capture(model: nn.Module, inputs: Inputs) -> Captured:
    """Trace one call as torch.compile does, and run the graphs as they are: nothing is compiled.

    Raises whatever torch.compile raises for a model that it cannot work with.
    """
    import torch
    from torch._dynamo.utils import counters

    recorder = _Recorder()
    counters["unimplemented"].clear()
    torch._dynamo.reset()
    try:
        with torch.inference_mode(), limit_that_is_told():
            traced: Any = torch.compile(entry(model), backend=recorder.backend, dynamic=False)
            call(traced, inputs)
        breaks = recorder.breaks
        given_up = [_first_line(reason) for reason in counters["unimplemented"]]
        reasons = " ".join(breaks)
        if any(reason not in reasons for reason in given_up):
            # Whole functions that it gave up on leave no graph that could tell the line: an error does.
            torch._dynamo.reset()
            breaks += _where_it_gives_up(model, inputs) or given_up
    finally:
        torch._dynamo.reset()  # what was traced here must not count against torch's limit of recompilations
    return _captured(model, recorder, _one_for_each_line(breaks))


class _Recorder:
    """A backend that remembers which tensors the graphs compute with."""

    def __init__(self) -> None:
        self.graphs = 0
        self.breaks: list[str] = []
        self.used: set[int] = set()
        self.used_opaquely: set[int] = set()
        self._alive: list[Any] = []

    def backend(self, graph: fx.GraphModule, _: list[Any]) -> Any:
        self.graphs += 1
        reason = getattr(graph, "compile_subgraph_reason", None)
        if reason is not None and reason.graph_break:
            self.breaks.append(_with_line(_first_line(reason.reason), reason.user_stack))
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        for node in graph.graph.find_nodes(op="get_attr"):
            self._note(node, getattr(graph, str(node.target), None))

        def run(*args: Any) -> Any:
            for node, value in zip(placeholders, args, strict=True):
                self._note(node, value)
            return graph.forward(*args)

        return run

    def _note(self, node: fx.Node, value: Any) -> None:
        self._alive.append(value)
        users = {getattr(user.target, "__name__", "") for user in node.users if user.op != "output"}
        if users & OPAQUE:
            self.used_opaquely.add(id(value))
        if users - OPAQUE:
            self.used.add(id(value))


def _captured(model: nn.Module, recorder: _Recorder, breaks: tuple[str, ...]) -> Captured:
    owners = dict(weight_owners(model))
    weights = {name: {id(p) for p in module._parameters.values() if p is not None} for name, module in owners.items()}
    used = {name for name, held in weights.items() if held <= recorder.used}
    # With a name, all that is inside of it counts as traced: so not the name of one that holds others that are not.
    traced = {name for name in used if _is_filled(name, set(owners), used)}
    opaque = {name for name, held in weights.items() if not held <= recorder.used and held & recorder.used_opaquely}
    if recorder.graphs == 1 and not breaks:
        # All of the call is in one graph, also what containers do themselves, as attention between activations.
        traced |= {name for name, _ in model.named_modules() if _is_filled(name, set(owners), used)}
    return Captured(recorder.graphs, breaks, frozenset(traced), frozenset(opaque))


def _is_filled(name: str, owners: set[str], traced: set[str]) -> bool:
    inside = {owner for owner in owners if not name or owner == name or owner.startswith(f"{name}.")}
    return bool(inside) and inside <= traced


def _where_it_gives_up(model: nn.Module, inputs: Inputs) -> list[str]:
    """The first reason, with its line, or nothing."""
    import torch

    try:
        with torch.inference_mode():
            traced: Any = torch.compile(entry(model), backend="eager", dynamic=False, fullgraph=True)
            call(traced, inputs)
    except Exception as error:
        return [_with_line(_first_line(str(error)), getattr(error, "real_stack", None))]
    return []


def _first_line(reason: str) -> str:
    line = next(iter(reason.strip().splitlines()), "")
    return "a branch on a tensor's value" if line.startswith("generic_jump TensorVariable") else line


def _with_line(reason: str, stack: Any) -> str:
    """`model.py:12: `if x.sum() > 0:` (a branch on a tensor's value)`."""
    frame = next(_frames_of_the_user(stack), None)
    if frame is None:
        return reason
    code = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{Path(frame.filename).name}:{frame.lineno}: `{code}` ({reason})"


def _one_for_each_line(breaks: list[str]) -> tuple[str, ...]:
    """The first reason for each line: what stops a whole function is told once as a break and once as an error."""
    by_line: dict[str, str] = {}
    for reason in breaks:
        by_line.setdefault(reason.rpartition("` (")[0] or reason, reason)
    return tuple(by_line.values())


def _frames_of_the_user(stack: Any) -> Iterator[Any]:
    for frame in reversed(stack or []):
        if "torch" not in Path(frame.filename).parts:
            yield frame
