"""Channels and hidden units that can only be removed together, their scores, and which of them nothing may touch.

torch-pruning finds which layers depend on each other's widths (the dependency graph of DepGraph, arXiv:2301.12900) and
scores the channels. Which of these groups may be touched is decided here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.pruning.structured.observing import tensors
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn

Index = list[int]

STEPS_PER_NODE, SMALLEST_BOUND = 4, 500
"""Steps after which the search for the layers of one group is given up, by the number of operations in the model."""

UNFOLLOWED = "torch-pruning cannot follow which layers depend on them"
OF_HEADS = "their width is that of attention heads, which go whole or not at all"


@dataclass(frozen=True)
class Candidate:
    """A group of layers that can only get narrower together, with the score of each of its channels."""

    root: nn.Module
    prune_root: Any
    importance: torch.Tensor | None
    """None where there is a reason to keep the group."""
    layers: tuple[nn.Module, ...]
    """The layers whose output would get narrower."""
    width: int
    channel_groups: int
    """Of grouped convolutions and GroupNorm: each of their groups must lose the same channels."""
    reason_to_keep: str

    def least_important(self, ratio: float, round_to: int) -> Index:
        """The channels to remove, those of lowest score; none where the width allows no step."""
        assert self.importance is not None
        step = math.lcm(round_to, self.channel_groups)
        whole = int(round(self.width * (1 - ratio), 6))  # 240 * (1 - 0.9) is 23.999999999999996
        kept = max(whole // step, 1) * step
        if kept >= self.width:
            return []
        size = self.width // self.channel_groups
        scores = self.importance.view(self.channel_groups, size).mean(dim=0)
        order = scores.argsort(stable=True)[: size - kept // self.channel_groups].tolist()
        return sorted(group * size + position for group in range(self.channel_groups) for position in order)


@contextlib.contextmanager
def all_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients on for every floating-point parameter; each parameter's own setting comes back afterwards."""
    import torch

    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def dependency_graph(model: nn.Module, inputs: Inputs) -> Any:
    """torch-pruning's graph, which it reads off autograd's.

    Raises:
        RecipeError: where it cannot follow the model.
    """
    import torch_pruning

    def differentiable(output: Any) -> list[torch.Tensor]:
        found = [tensor for tensor in tensors(output) if tensor.grad_fn is not None]
        if not found:
            raise RecipeError(
                "prune-structured finds the order of the layers by gradients, and no output has any: see "
                "that forward does not detach it or run under torch.no_grad()"
            )
        return found

    with all_gradients(model):
        return torch_pruning.DependencyGraph().build_dependency(
            model, example_inputs=inputs, forward_fn=call, output_transform=differentiable, verbose=False
        )


def unfollowed(problem: str) -> str:
    """The reason to keep a group of which torch-pruning made nothing, or nothing that fits the model."""
    return f"{UNFOLLOWED} ({problem})"


def last_followed(model: nn.Module, error: BaseException) -> str:
    """The name of the layer after which torch-pruning lost its way: the nearest before the operation that it was at."""
    from torch import nn
    from torch_pruning.dependency.node import Node

    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    nodes: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        nodes = [value for value in trace.tb_frame.f_locals.values() if isinstance(value, Node)] or nodes
        trace = trace.tb_next
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop(0)
        if isinstance(node.module, (nn.Linear, nn.modules.conv._ConvNd)) and names.get(node.module):
            return names[node.module]
        if node not in seen:
            seen.add(node)
            nodes += node.inputs
    return ""


def candidates(graph: Any, model: nn.Module, score: Any, protected: Protected) -> Iterator[Candidate]:
    """All groups with their scores, before anything is removed, so that the order does not matter."""
    import torch

    for root, handler, group, problem in _groups(graph):
        if group is None:
            yield Candidate(root, handler, None, (root,), 0, 1, unfollowed(problem))
            continue
        layers = _narrowed_layers(graph, group)
        reason = protected.reason(group, graph, layers)
        importance = None
        if not reason:
            try:
                with torch.no_grad():
                    importance = score(group).cpu()
            except Exception as error:  # the group names channels that a layer does not have
                reason = unfollowed(last_line(error))
            if importance is not None and not bool(importance.any()):
                importance, reason = None, "their units have no score (all weights or all gradients are zero)"
        channel_groups = max(_channel_groups(dep.target.module) for dep, _ in group)
        yield Candidate(root, handler, importance, layers, len(group[0].idxs), channel_groups, reason)


def _groups(graph: Any) -> Iterator[tuple[nn.Module, Any, Any, str]]:
    """(layer, its way to be pruned, the group of its outputs or None, why None), each group once."""
    from torch import nn

    visited: set[nn.Module] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) or layer in visited:
            continue
        pruner = graph.get_pruner_of_module(layer)
        handler, group, problem = pruner.prune_out_channels, None, ""
        try:
            with _bounded_search(graph):
                group = graph.get_pruning_group(layer, handler, list(range(pruner.get_out_channels(layer))))
        except Exception as error:
            problem = last_line(error)
        else:
            handler = group[0].dep.handler
            visited.update(_narrowed_layers(graph, group))
        yield layer, handler, group, problem


def _narrowed_layers(graph: Any, group: Any) -> tuple[nn.Module, ...]:
    """The layers of a group whose output would get narrower."""
    from torch import nn

    return tuple(
        dict.fromkeys(
            dep.target.module
            for dep, _ in group
            if isinstance(dep.target.module, (nn.Linear, nn.modules.conv._ConvNd))
            and graph.is_out_channel_pruning_fn(dep.handler)
        )
    )


@contextlib.contextmanager
def _bounded_search(graph: Any) -> Iterator[None]:
    """An error where the search for a group does not end, as with rotary position embeddings.

    These cut their inputs in halves and join them again the other way around: torch-pruning follows the same channels
    in ever other places.
    """
    from torch_pruning.dependency import graph as module

    bound = STEPS_PER_NODE * len(graph.module2node) + SMALLEST_BOUND

    class Bounded(module.Group):  # type: ignore[misc]
        def add_dep(self, dep: Any, idxs: Any) -> None:
            if len(self) > bound:
                raise RecursionError("the search for them does not end")
            super().add_dep(dep, idxs)

    original = module.Group
    module.Group = Bounded
    try:
        yield
    finally:
        module.Group = original


class Protected:
    """What no group may touch: the model's outputs, attention, recurrent modules, shared weights, excluded layers."""

    def __init__(self, model: nn.Module, of_heads: Collection[nn.Module], excluded: Collection[nn.Module]) -> None:
        from torch import nn

        from pytest_modelopt.optimizing.pruning.fewer_heads_module import FewerHeads

        self._tied = tied_parameters(model)
        self._of_heads = {id(module) for module in of_heads}
        self._excluded = {id(module) for module in excluded}
        self._attention: set[int] = set()
        self._recurrent: set[int] = set()
        for module in model.modules():
            if isinstance(module, (nn.MultiheadAttention, FewerHeads)):
                self._attention |= _identities(module)
            elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
                self._recurrent |= _identities(module)

    def reason(self, group: Any, graph: Any, layers: tuple[nn.Module, ...]) -> str:
        from torch import nn
        from torch.nn.utils import parametrize

        members = [dep.target.module for dep, _ in group]
        if any(id(layer) in self._of_heads for layer in layers):
            return OF_HEADS
        if any(_is_output(dep, graph) for dep, _ in group):
            return "their width is that of the model's output"
        if any(id(layer) in self._excluded for layer in layers):
            return "they, or layers whose width they share, are named in keep"
        if any(id(member) in self._attention for member in members):
            return "MultiheadAttention shares their width, and loses whole heads only"
        if any(id(member) in self._recurrent for member in members):
            return "a recurrent module shares their width, and is left alone"
        modules = [member for member in members if isinstance(member, nn.Module)]
        if any(parametrize.is_parametrized(module) for module in modules) or any(
            not isinstance(layer._parameters.get("weight"), nn.Parameter) for layer in layers
        ):
            return "their weight is reparametrized"
        parameters = [
            parameter
            for member in members
            for parameter in (member.parameters(recurse=False) if isinstance(member, nn.Module) else [member])
        ]
        if any(id(parameter) in self._tied for parameter in parameters):
            return "another module shares a weight with them"
        return ""


def _is_output(dep: Any, graph: Any) -> bool:
    """Whether the width of the model's own output would change."""
    node = dep.target
    if type(node.module).__name__ == "_OutputOp":
        return True
    return not node.outputs and bool(graph.is_out_channel_pruning_fn(dep.handler))


def _identities(module: nn.Module) -> set[int]:
    return {id(child) for child in module.modules()} | {id(parameter) for parameter in module.parameters()}


def _channel_groups(module: Any) -> int:
    from torch import nn

    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, nn.modules.conv._ConvNd) and not is_depthwise(module):
        return module.groups
    return 1


def is_depthwise(module: nn.modules.conv._ConvNd) -> bool:
    return module.groups == module.out_channels
