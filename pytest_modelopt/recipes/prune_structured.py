"""prune-structured: whole channels and hidden units of least importance are removed, so that layers get smaller.

torch-pruning finds which layers depend on each other's widths (the dependency graph of DepGraph, arXiv:2301.12900) and
scores the channels. Which of these groups may be touched, and whether the model is still the same function afterwards,
is decided here, group by group: a group that the model's code does not let shrink is put back and named in a note.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from pytest_modelopt.figures import format_bytes
from pytest_modelopt.recipes.base import Applied, Context, Recipe, RecipeError
from pytest_modelopt.recipes.calling import Inputs, call
from pytest_modelopt.recipes.describe import last_line, modules_in_words, total_bytes
from pytest_modelopt.recipes.sharing import tied_parameters

if TYPE_CHECKING:
    import torch
    from torch import nn

Index = list[int]

REFUSED_BY_CODE = "the model's code does not let them get narrower"

FLOAT32_TOLERANCE = 1e-3
LOW_PRECISION_TOLERANCE = 5e-2
"""Largest difference, relative to the largest output, between removed units and the same units silenced."""


class PruneStructured(Recipe):
    """Remove the share `ratio` of the channels of each layer, those of smallest L2 norm over all layers they connect.

    The channels that remain are a multiple of `round_to`, and at least `round_to`.
    """

    recipe_name: ClassVar[str] = "prune-structured"
    summary: ClassVar[str] = "removes the channels and hidden units of smallest norm; layers get smaller"
    extra: ClassVar[str | None] = "pruning"
    requires: ClassVar[tuple[str, ...]] = ("torch_pruning",)
    needs_example: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = ("Linear", "Conv1d", "Conv2d", "Conv3d")

    ratio: float = Field(default=0.3, gt=0, lt=1)
    round_to: int = Field(default=8, ge=1)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        import torch_pruning

        bytes_before = total_bytes(model)
        needs_gradient = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        try:
            with _gradients_for_tracing(model):
                graph = _dependencies(torch_pruning, model, context.example_inputs)
            candidates = list(_candidates(torch_pruning, graph, model))
        except RecipeError:
            raise
        except Exception as error:
            raise RecipeError(
                f"prune-structured: torch-pruning cannot follow how the layers of {type(model).__name__} depend on "
                f"each other: {last_line(error)}"
            ) from error
        surgery = _Surgery(graph, model, context.example_inputs)
        kept: dict[str, list[nn.Module]] = {}
        removed_units = all_units = 0
        for candidate in candidates:
            removed = candidate.least_important(self.ratio, self.round_to)
            reason = candidate.reason_to_keep
            if not reason and not removed:
                reason = f"too narrow to lose {self.ratio:.0%} and keep a multiple of {self.round_to}"
            reason = reason or surgery.remove(candidate, removed)
            if reason:
                kept.setdefault(reason, []).extend(candidate.layers)
            else:
                removed_units += len(removed)
                all_units += candidate.width
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(needs_gradient[name])
        notes = [
            f"{modules_in_words(layers)} keep their width: {reason}"
            + (f" ({surgery.refusal})" if reason == REFUSED_BY_CODE else "")
            for reason, layers in kept.items()
        ]
        closed = [module for module in model.modules() if isinstance(module, _closed_types())]
        if closed:
            notes.append(f"{modules_in_words(closed)} left as they are: their inner widths are not pruned")
        if removed_units:
            notes.insert(
                0,
                f"removed {removed_units:,} of {all_units:,} channels and hidden units; the weights went from "
                f"{format_bytes(bytes_before)} to {format_bytes(total_bytes(model))}; without further training "
                f"the accuracy usually drops",
            )
        return Applied(model, tuple(notes))


@dataclass(frozen=True)
class _Candidate:
    """A group of layers that can only get narrower together, with the score of each of its channels."""

    root: nn.Module
    prune_root: Any
    importance: torch.Tensor
    layers: tuple[nn.Module, ...]
    """The layers whose output would get narrower."""
    channel_groups: int
    """Of grouped convolutions and GroupNorm: each of their groups must lose the same channels."""
    reason_to_keep: str

    @property
    def width(self) -> int:
        return len(self.importance)

    def least_important(self, ratio: float, round_to: int) -> Index:
        """The channels to remove, fewest norm first; none where the width allows no step."""
        step = math.lcm(round_to, self.channel_groups)
        kept = max(int(self.width * (1 - ratio)) // step, 1) * step
        if kept >= self.width:
            return []
        size = self.width // self.channel_groups
        scores = self.importance.view(self.channel_groups, size).mean(dim=0)
        order = scores.argsort(stable=True)[: size - kept // self.channel_groups].tolist()
        return sorted(group * size + position for group in range(self.channel_groups) for position in order)


@contextlib.contextmanager
def _gradients_for_tracing(model: nn.Module) -> Iterator[None]:
    """Gradients on for every floating-point parameter, because the graph is read from autograd's."""
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


def _dependencies(torch_pruning: Any, model: nn.Module, inputs: Inputs) -> Any:
    def differentiable(output: Any) -> list[torch.Tensor]:
        tensors = [tensor for tensor in _tensors(output) if tensor.grad_fn is not None]
        if not tensors:
            raise RecipeError("prune-structured finds no output that gradients reach: it cannot tell the layers' order")
        return tensors

    return torch_pruning.DependencyGraph().build_dependency(
        model,
        example_inputs=inputs,
        forward_fn=call,
        output_transform=differentiable,
        verbose=False,
    )


def _candidates(torch_pruning: Any, graph: Any, model: nn.Module) -> Iterator[_Candidate]:
    """All groups with their scores, before anything is removed, so that the order does not matter."""
    import torch
    from torch import nn

    score = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    protected = _Protected(model)
    for group in graph.get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
        root = group[0].dep.target.module
        layers = tuple(
            dict.fromkeys(
                dep.target.module
                for dep, _ in group
                if isinstance(dep.target.module, (nn.Linear, nn.modules.conv._ConvNd))
                and graph.is_out_channel_pruning_fn(dep.handler)
            )
        )
        with torch.no_grad():
            importance = score(group)
        yield _Candidate(
            root,
            group[0].dep.handler,
            importance.cpu(),
            layers,
            max(_channel_groups(dep.target.module) for dep, _ in group),
            protected.reason(group, graph),
        )


def _closed_types() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase


class _Protected:
    """What no group may touch: outputs of the model, attention and recurrent modules, shared weights."""

    def __init__(self, model: nn.Module) -> None:
        from torch import nn

        self._tied = tied_parameters(model)
        self._attention: set[int] = set()
        self._recurrent: set[int] = set()
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                self._attention |= _identities(module)
            elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
                self._recurrent |= _identities(module)

    def reason(self, group: Any, graph: Any) -> str:
        from torch import nn

        members = [dep.target.module for dep, _ in group]
        if any(_is_output(dep, graph) for dep, _ in group):
            return "their width is that of the model's output"
        if any(id(member) in self._attention for member in members):
            return "MultiheadAttention shares their width, and is left alone"
        if any(id(member) in self._recurrent for member in members):
            return "a recurrent module shares their width, and is left alone"
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
    if isinstance(module, nn.modules.conv._ConvNd) and not _is_depthwise(module):
        return module.groups
    return 1


def _is_depthwise(module: nn.modules.conv._ConvNd) -> bool:
    return module.groups == module.out_channels


class _Surgery:
    """Removes a group's channels, and puts them back if the model is no longer what it was without these channels."""

    def __init__(self, graph: Any, model: nn.Module, inputs: Inputs) -> None:
        self._graph = graph
        self._model = model
        self._inputs = inputs
        self.refusal = ""
        """The first error that a narrower layer raised in the model's code."""

    def remove(self, candidate: _Candidate, removed: Index) -> str:
        """'' when they are gone for good; the reason when they were put back."""
        group = self._graph.get_pruning_group(candidate.root, candidate.prune_root, removed)
        if not self._graph.check_pruning_group(group):
            return "a layer would be left without channels"
        expected = self._silenced_outputs(group)
        backup = _Backup(self._model, self._graph, group)
        try:
            group.prune()
            outputs = self._outputs()
        except Exception as error:
            backup.restore()
            self.refusal = self.refusal or last_line(error)
            return REFUSED_BY_CODE
        if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in expected.tensors]:
            backup.restore()
            return "the shape of the model's output would change"
        if expected.comparable and not _close(expected.tensors, outputs):
            backup.restore()
            return (
                "the model's code mixes their units in an order that does not follow the layers (as attention heads "
                "do), and the remaining units would be mistaken for others"
            )
        return ""

    def _outputs(self) -> list[torch.Tensor]:
        import torch

        with torch.no_grad():
            return [tensor.clone() for tensor in _tensors(call(self._model, self._inputs))]

    def _silenced_outputs(self, group: Any) -> _Expected:
        """What the model answers while the units send and receive zeros instead of being removed."""
        import torch

        clones: list[tuple[torch.Tensor, torch.Tensor]] = []
        comparable = True
        for dep, indices in group:
            module = dep.target.module
            is_output = self._graph.is_out_channel_pruning_fn(dep.handler)
            for weight, dimension in _silenceable(module, is_output):
                clones.append((weight, weight.detach().clone()))
                weight.data.index_fill_(dimension, torch.tensor(indices, device=weight.device), 0)
            comparable = comparable and not self._normalizes_channels(module)
        try:
            return _Expected(self._outputs(), comparable)
        finally:
            for weight, clone in reversed(clones):
                weight.data.copy_(clone)

    def _normalizes_channels(self, member: Any) -> bool:
        """Whether statistics over the channels are taken: with channels removed they are taken over fewer."""
        from torch import nn

        if isinstance(member, nn.Parameter):
            owner = self._graph._param_to_name[member].rpartition(".")[0]
            return "norm" in type(self._model.get_submodule(owner)).__name__.lower()
        return isinstance(member, (nn.LayerNorm, nn.GroupNorm))


@dataclass(frozen=True)
class _Expected:
    """Outputs with silenced units; not comparable with removed ones where a layer averages over the channels."""

    tensors: list[torch.Tensor]
    comparable: bool


class _Backup:
    """The modules of a model and the bookkeeping of its graph before a group is pruned.

    Pruning puts new parameters into modules and new numbers into attributes, and touches no tensor in place: to keep
    the references is enough.
    """

    def __init__(self, model: nn.Module, graph: Any, group: Any) -> None:
        from torch import nn

        operations = [dep.target.module for dep, _ in group if isinstance(dep.target.module, nn.Module)]
        self._attributes = [
            (module, {name: _shallow(value) for name, value in vars(module).items()})
            for module in dict.fromkeys([*model.modules(), *operations])
        ]
        self._graph = graph
        self._names = dict(graph._param_to_name)
        self._nodes = dict(graph.module2node)

    def restore(self) -> None:
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update(attributes)
        self._graph._param_to_name = self._names
        self._graph.module2node = self._nodes
        for module, node in self._nodes.items():
            node.module = module


def _shallow(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, (dict, list)) else value


def _silenceable(module: Any, is_output: bool) -> Iterator[tuple[torch.Tensor, int]]:
    """The parameters, each with its channel dimension, through which a unit of this layer sends or receives."""
    from torch import nn

    if isinstance(module, nn.Linear):
        yield module.weight, 0 if is_output else 1
    elif isinstance(module, nn.modules.conv._ConvNd):
        dimension = int(is_output) if module.transposed else int(not is_output)
        if dimension == 0 or module.groups == 1:
            yield module.weight, dimension
    else:
        return
    if is_output and module.bias is not None:
        yield module.bias, 0


def _tensors(output: Any) -> list[torch.Tensor]:
    import torch
    from torch.utils import _pytree

    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _close(expected: list[torch.Tensor], outputs: list[torch.Tensor]) -> bool:
    import torch

    for one, other in zip(expected, outputs, strict=True):
        if not one.is_floating_point():
            continue
        tolerance = FLOAT32_TOLERANCE if torch.finfo(one.dtype).bits >= 32 else LOW_PRECISION_TOLERANCE
        scale = float(one.abs().max()) if one.numel() else 0.0
        if not math.isfinite(scale):
            continue
        if not torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            return False
    return True
