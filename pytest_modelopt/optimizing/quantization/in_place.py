"""Writes in place in a traced graph: each step is made to work with what the step before it answered.

A graph of torch.fx notes `h.mul_(4)` as a call and goes on with `h`, which is right as long as both are one tensor. A
quantized graph copies: what is quantized, or made floating point of again, is no longer the tensor that was written to.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx, nn


def use_what_writes_answer(graph: fx.Graph, model: nn.Module) -> None:
    """Let whatever comes after a write in place use the write's answer in the place of the tensor written to."""
    _read_once_what_is_written(graph, model)
    before: set[fx.Node] = set()
    for node in graph.nodes:
        before.add(node)
        written = _written(node, model)
        if written is not None:
            written.replace_all_uses_with(node, delete_user_cb=lambda user: user not in before)


def _read_once_what_is_written(graph: fx.Graph, model: nn.Module) -> None:
    """Let a weight or buffer that is written to be one node: torch.fx makes one wherever the code names it."""
    written = {_written(node, model) for node in graph.nodes}
    names = {node.target for node in written if node is not None and node.op == "get_attr"}
    first: dict[Any, fx.Node] = {}
    for node in list(graph.find_nodes(op="get_attr")):
        if node.target in names and first.setdefault(node.target, node) is not node:
            node.replace_all_uses_with(first[node.target])
            graph.erase_node(node)


def _written(node: fx.Node, model: nn.Module) -> fx.Node | None:
    """What the call of a node writes to and answers with."""
    from torch import fx

    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return out
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) and _writes(node, model) else None


def _writes(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return getattr(model.get_submodule(str(node.target)), "inplace", False) is True
    return node.op in ("call_method", "call_function") and (_is_named_so(node.target) or _is_told_to_write(node))


def _is_named_so(target: Any) -> bool:
    """Whether a method or function of torch is named as those are that write in place."""
    from torch.fx.graph import inplace_methods

    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if getattr(target, "__module__", None) == "_operator":
        return name in inplace_methods and name != "setitem"
    if inspect.isfunction(target) and not target.__module__.startswith("torch."):
        return False
    name = name.partition(".")[0]  # of an operator such as aten.add_.Tensor
    return name.endswith("_") and not name.endswith("__")


def _is_told_to_write(node: fx.Node) -> bool:
    """Whether a function such as F.relu is given `inplace=True`, by name or by position."""
    if node.kwargs.get("inplace") is True:
        return True
    if node.op != "call_function" or True not in [arg for arg in node.args if isinstance(arg, bool)]:
        return False
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a builtin tells no names, and none of torch's takes `inplace`
        return False
    return bound.arguments.get("inplace") is True


def cut_at_observers(prepared: fx.GraphModule) -> fx.GraphModule:
    """The observed graph without its observers, with copies wherever the converted graph may have them.

    Where it answers as the model does, it does not matter which tensors are copied. Its modules are those of
    `prepared`.
    """
    from torch.ao.quantization.observer import ObserverBase
    from torch.fx import GraphModule

    graph = copy.deepcopy(prepared.graph)
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(prepared.get_submodule(str(node.target)), ObserverBase):
            continue
        with graph.inserting_before(node):
            observed = graph.call_function(copied, node.args)
        for user in list(node.users):
            with graph.inserting_before(user):
                user.replace_input_with(node, graph.call_function(copied, (observed,)))
        graph.erase_node(node)
    module = GraphModule(prepared, graph)
    module.graph.eliminate_dead_code()  # as the conversion does: also of a write whose answer nobody uses
    module.recompile()
    return module


def copied(value: Any) -> Any:
    import torch

    return value.clone() if isinstance(value, torch.Tensor) else value
