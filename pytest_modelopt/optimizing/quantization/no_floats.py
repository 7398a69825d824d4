"""Masks, whole numbers and infinities in a graph of torch.fx, for which torch's quantizer has no range."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, fresh
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step
from pytest_modelopt.optimizing.runtimes.exporting import arguments

if TYPE_CHECKING:
    from torch import fx


def without_observers_of_no_floats(prepared: fx.GraphModule, inputs: Inputs) -> fx.GraphModule:
    """`prepared` without those of its observers that see no floating-point numbers on these inputs, on which they fail,
    or infinite ones: no range of int8 holds the -inf of what is forbidden beside the scores of the rest.

    What is not observed is not quantized: such values stay as they are, and operators on them in floating point.
    """
    import torch
    from torch.ao.quantization import ObserverBase
    from torch.fx import Interpreter

    seen: dict[fx.Node, Any] = {}

    class Watching(Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.op != "call_module" or not isinstance(prepared.get_submodule(str(n.target)), ObserverBase):
                return super().run_node(n)
            seen[n] = self.env[n.args[0]]  # type: ignore[index]
            return seen[n]

    names = [str(node.target) for node in prepared.graph.find_nodes(op="placeholder")]
    args, kwargs = arguments(fresh(inputs))
    with torch.random.fork_rng([]), torch.no_grad(), unfused(), step_by_step(), contextlib.suppress(Exception):
        # where it fails, so does the next call, which tells it
        Watching(prepared).run(*args, *(kwargs[name] for name in names if name in kwargs))
    for node, value in seen.items():
        if isinstance(value, torch.Tensor) and not (value.is_floating_point() and bool(value.isfinite().all())):
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            prepared.graph.erase_node(node)
    prepared.recompile()
    return prepared
