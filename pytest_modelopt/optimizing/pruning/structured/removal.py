"""A group of channels removed, and put back if the model is no longer what it was without these channels."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.describe import last_line, type_name
from pytest_modelopt.optimizing.pruning.structured.groups import Candidate, Index, unfollowed
from pytest_modelopt.optimizing.pruning.structured.observing import Backup, Observation, observe, selected, zeroed

if TYPE_CHECKING:
    import torch
    from torch import nn

REFUSED_BY_CODE = "the model's code does not let them get narrower"


class Surgery:
    """Removes a group's channels, and puts them back if the model is no longer what it was without these channels."""

    def __init__(self, graph: Any, model: nn.Module, inputs: Inputs) -> None:
        self._graph = graph
        self._model = model
        self._inputs = inputs
        self.refusal = ""
        """The first error that a narrower layer raised in the model's code."""

    def remove(self, candidate: Candidate, removed: Index) -> str:
        """'' when they are gone for good; the reason when they were put back."""
        try:
            group = self._graph.get_pruning_group(candidate.root, candidate.prune_root, removed)
            if not self._graph.check_pruning_group(group):
                return "a layer would be left without channels"
            readers = self._readers(group)
            expected = self._silenced(group, readers)
        except _NotComparable as error:
            return str(error)
        except Exception as error:  # the group names channels that a layer does not have
            return unfollowed(last_line(error))
        backup = _GraphBackup(self._model, self._graph, group)
        try:
            group.prune()
            found = observe(self._model, self._inputs, readers)
        except Exception as error:
            backup.restore()
            self.refusal = self.refusal or last_line(error)
            return REFUSED_BY_CODE
        difference = expected.difference(found)
        if difference:
            backup.restore()
        return difference

    def _readers(self, group: Any) -> list[nn.Module]:
        """The layers that would read fewer channels."""
        from torch import nn

        return list(
            dict.fromkeys(
                dep.target.module
                for dep, _ in group
                if isinstance(dep.target.module, (nn.Linear, nn.modules.conv._ConvNd))
                and self._graph.is_in_channel_pruning_fn(dep.handler)
            )
        )

    def _silenced(self, group: Any, readers: list[nn.Module]) -> Observation:
        """What the model answers while the units send and receive zeros instead of being removed."""
        parts = []
        kept: dict[nn.Module, torch.Tensor] = {}
        norms: dict[nn.Module, tuple[dict[str, nn.Parameter], torch.Tensor]] = {}
        for dep, indices in group:
            module = dep.target.module
            is_output = self._graph.is_out_channel_pruning_fn(dep.handler)
            for weight, dimension in _silenceable(module, is_output):
                parts.append((weight, dimension, indices))
            if is_output and module in readers:
                kept[module] = _complement(indices, _outputs(module))
            norm = self._normalizer(module)
            if norm is not None:
                narrowed, _ = norms.setdefault(norm, ({}, _complement(indices, _norm_width(module))))
                narrowed.update(_narrowed_parameters(norm, module, norms[norm][1]))
        with contextlib.ExitStack() as stack, zeroed(parts):
            for norm, (narrowed, remaining) in norms.items():
                stack.enter_context(_normalizing_fewer(norm, narrowed, remaining))
            return observe(self._model, self._inputs, readers, kept)

    def _normalizer(self, member: Any) -> nn.Module | None:
        """The module that takes statistics over the channels: with channels removed it takes them over fewer."""
        from torch import nn

        if isinstance(member, (nn.LayerNorm, nn.GroupNorm)):
            return member
        if isinstance(member, nn.Parameter):
            owner = self._model.get_submodule(self._graph._param_to_name[member].rpartition(".")[0])
            return owner if "norm" in type_name(owner).lower() else None
        return None


class _NotComparable(Exception):
    """Whether the answers stay right cannot be told; the message says why."""


class _GraphBackup(Backup):
    """The modules of a model and the bookkeeping of its graph before a group is pruned."""

    def __init__(self, model: nn.Module, graph: Any, group: Any) -> None:
        from torch import nn

        operations = [dep.target.module for dep, _ in group if isinstance(dep.target.module, nn.Module)]
        super().__init__([*model.modules(), *operations])
        self._graph = graph
        self._names = dict(graph._param_to_name)
        self._nodes = dict(graph.module2node)

    def restore(self) -> None:
        super().restore()
        self._graph._param_to_name = self._names
        self._graph.module2node = self._nodes
        for module, node in self._nodes.items():
            node.module = module


def _complement(indices: Index, width: int) -> torch.Tensor:
    import torch

    removed = set(indices)
    return torch.tensor([index for index in range(width) if index not in removed])


def _norm_width(member: Any) -> int:
    from torch import nn

    if isinstance(member, nn.GroupNorm):
        return member.num_channels
    return int(member.normalized_shape[-1]) if isinstance(member, nn.LayerNorm) else int(member.numel())


def _narrowed_parameters(norm: nn.Module, member: Any, kept: torch.Tensor) -> dict[str, nn.Parameter]:
    """The parameters of `norm` that shrink: all of a LayerNorm or GroupNorm, or the one that the group names."""
    from torch import nn

    if isinstance(member, nn.Parameter) and member.dim() != 1:
        raise _NotComparable(
            f"{type_name(norm)} normalizes over their units, and its parameters have several dimensions"
        )
    return {
        name: selected(parameter, 0, kept)
        for name, parameter in norm._parameters.items()
        if parameter is not None and (not isinstance(member, nn.Parameter) or parameter is member)
    }


@contextlib.contextmanager
def _normalizing_fewer(norm: nn.Module, narrowed: dict[str, nn.Parameter], kept: torch.Tensor) -> Iterator[None]:
    """The norm's own forward on the channels that remain, and zeros at the others."""
    from torch import nn

    narrow = copy.copy(norm)
    vars(narrow).update(_parameters={**norm._parameters, **narrowed}, _forward_hooks={}, _forward_pre_hooks={})
    if isinstance(narrow, nn.LayerNorm):
        narrow.normalized_shape = (*narrow.normalized_shape[:-1], len(kept))
    elif isinstance(narrow, nn.GroupNorm):
        narrow.num_channels = len(kept)
    width = _norm_width(norm) if isinstance(norm, (nn.LayerNorm, nn.GroupNorm)) else None

    def replace(_: nn.Module, args: tuple[Any, ...], output: Any) -> torch.Tensor:
        entering = args[0]
        size = width or next(len(p) for name, p in norm._parameters.items() if p is not None and name in narrowed)
        fitting = [d for d in (entering.dim() - 1, 1) if entering.dim() > d and entering.shape[d] == size]
        dimension = 1 if isinstance(norm, nn.GroupNorm) else fitting[0]
        if len(set(fitting)) > 1 and not isinstance(norm, nn.GroupNorm) and type(norm) is not nn.LayerNorm:
            raise _NotComparable(f"{type_name(norm)} normalizes over their units, in a dimension that cannot be told")
        indices = kept.to(entering.device)
        inner: torch.Tensor = narrow(entering.index_select(dimension, indices))
        result: torch.Tensor = output.new_zeros(output.shape)
        return result.index_copy_(dimension, indices, inner)

    handle = norm.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _outputs(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.out_channels)


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
