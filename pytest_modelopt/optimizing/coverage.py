"""What a recipe really changed: every weight of the model, compared bit by bit with how it was before.

A weight is unchanged if and only if the new model still holds it as a floating-point tensor of the same shape, dtype
and bits. Its name is looked up first, as the author knows it (`weight`, also where a reparametrization has moved it to
`parametrizations.weight.original` or `weight_orig`); a tensor that was merely moved to another name, as FX or a
replaced module do, is found by its bits. Everything else counts as changed, with all its bytes.

Other runtimes transpose, concatenate and reorder what they take over. There a weight is unchanged if all of its numbers
are still among those that the runtime's model holds in floating point: for more than a few numbers that is no chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.describe import author_name, type_name
from pytest_modelopt.optimizing.modules.shared_tensors import held, held_beside, shared_bytes, sharing
from pytest_modelopt.optimizing.modules.tensor_digest import Bits, bits_of
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.results.measurement import LayerCoverage

if TYPE_CHECKING:
    import torch
    from torch import nn

_AT_ONCE = 1 << 20
"""Numbers that are looked up together."""
PARAMETRIZED = re.compile(r"(^|.*\.)parametrizations\.([^.]+)\.original(\d*)\Z")


@dataclass(frozen=True)
class Weight:
    """A parameter, or what shares its numbers, as it was, under its first name and that of its module."""

    name: str
    module: str
    type: str
    bits: Bits
    nbytes: int
    """Bytes that it takes in memory beside the weights before it, with which it may share some or all."""
    owner: str = ""
    """The module under whose weight its numbers are counted, where it shares all of them."""


@dataclass(frozen=True)
class Snapshot:
    """All parameters of a model by their bits, which take no memory beside it; numbers that several names share are
    counted once, under the first name."""

    weights: tuple[Weight, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Class names of all modules, those without weights included."""

    @property
    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights)

    def trained(self, before: Snapshot, after: Snapshot) -> Snapshot:
        """The same with the weights as a training has left them, which `before` and `after` were taken around: of
        those that it found as they are here."""
        found = {weight.name: weight.bits for weight in before.weights}
        left = {weight.name: weight.bits for weight in after.weights}
        weights = (
            replace(weight, bits=left.get(weight.name, weight.bits))
            if weight.name in found and weight.bits.are(found[weight.name])
            else weight
            for weight in self.weights
        )
        return replace(self, weights=tuple(weights))

    def layers(self) -> tuple[tuple[str, str, int], ...]:
        """(name, type, weight bytes) of each module that owns weights, in the model's order."""
        sizes: dict[tuple[str, str], int] = {}
        for weight in self.weights:
            if weight.owner:
                continue
            sizes[weight.module, weight.type] = sizes.get((weight.module, weight.type), 0) + weight.nbytes
        return tuple((name, kind, size) for (name, kind), size in sizes.items())


def snapshot(model: nn.Module) -> Snapshot:
    """Every parameter of the model. Other tensors are weights only if they share numbers with a parameter.

    These come first: where a parameter is replaced, they hold its numbers as before.
    """
    from torch.nn.parameter import is_lazy

    from pytest_modelopt.optimizing.runtimes.program_file_module import ProgramFile

    if isinstance(model, ProgramFile):
        return Snapshot(
            tuple(
                Weight(name, _layer(name), kind, bits_of(tensor), tensor.nbytes)
                for name, kind, tensor in model.weights()
            )
        )
    types = {name: type_name(module) for name, module in _modules(model).items()}
    parameters = list(model.named_parameters(remove_duplicate=False))
    for raw_name, parameter in parameters:
        if is_lazy(parameter):
            raise RecipeError(f"{raw_name} is not initialized yet: run the model once in its factory")
    named = [*_sharing_with(parameters, list(held_beside(model))), *parameters]
    group_of = {position: group for group in sharing([tensor for _, tensor in named]) for position in group}
    weights: list[Weight] = []
    for position, (raw_name, tensor) in enumerate(named):
        name = _author_name(raw_name)
        module = name.rpartition(".")[0]
        before = [other for other in group_of.get(position, ()) if other < position]
        nbytes = sum(part.nbytes for part in held(tensor))
        shared = sum(shared_bytes(named[other][1], tensor) for other in before)
        own_bytes = max(0, nbytes - shared)
        owner = weights[before[0]].module if before and not own_bytes else ""
        weights.append(Weight(name, module, types[module], bits_of(tensor), own_bytes, owner))
    return Snapshot(tuple(weights), types)


def _layer(constant: str) -> str:
    """What a constant of a program belongs to: exporters name it after the module and its parameter."""
    return constant.rpartition(".")[0] or constant


def _sharing_with(
    parameters: Sequence[tuple[str, torch.Tensor]], others: Sequence[tuple[str, torch.Tensor]]
) -> list[tuple[str, torch.Tensor]]:
    """Those of `others` that share numbers with a parameter."""
    groups = sharing([tensor for _, tensor in (*parameters, *others)])
    first = len(parameters)
    found = sorted(position for group in groups if group[0] < first for position in group if position >= first)
    return [others[position - first] for position in found]


def compare(
    before: Snapshot,
    model: nn.Module,
    reached: frozenset[str] = frozenset(),
    multiply_adds: Mapping[str, int] | None = None,
    source: nn.Module | None = None,
) -> tuple[LayerCoverage, ...]:
    """How many weight bytes of each layer of `before` the model no longer holds bit by bit.

    The weights of modules in `reached`, by name, or within one of these, count as changed in any case.
    `multiply_adds` of one call of the model that `before` was taken of, by module.
    `source`: where another runtime runs the model, what was converted for it. A weight that it no longer holds was
    changed before.
    """
    multiply_adds = multiply_adds or {}
    changed_weights = [weight for weight in before.weights if _is_within(weight.module, reached)]
    found = {weight.name for weight in changed_weights}
    others = tuple(weight for weight in before.weights if weight.name not in found)
    changed_weights += _changed_weights(others, model, source) if others else []
    changed: dict[tuple[str, str], int] = defaultdict(int)
    for weight in changed_weights:
        changed[weight.module, weight.type] += weight.nbytes
    matrices = {weight.module for weight in changed_weights if len(weight.bits.shape) > 1}
    layers = [
        LayerCoverage(
            name,
            kind,
            size,
            changed[name, kind],
            counted := multiply_adds.get(name, 0),
            counted if _is_within(name, reached) or name in matrices else 0,
        )
        for name, kind, size in before.layers()
    ]
    owners = {layer.name for layer in layers}
    for name, counted in multiply_adds.items():
        if name not in owners:
            kind = before.types.get(name, "")
            is_changed = _is_within(name, reached) or name in matrices
            layers.append(LayerCoverage(name, kind, 0, 0, counted, counted if is_changed else 0))
    return tuple(layers)


def is_changed(before: Snapshot, model: nn.Module, source: nn.Module | None = None) -> bool:
    """Whether any weight is another one, those included whose numbers are counted under another weight."""
    return bool(_changed_weights(before.weights, model, source))


def _is_within(name: str, reached: frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in reached for end in range(len(parts) + 1))


def _changed_weights(before: Sequence[Weight], model: nn.Module, source: nn.Module | None) -> list[Weight]:
    from pytest_modelopt.optimizing.runtimes.runtime_module import HoldsPrograms

    if isinstance(model, HoldsPrograms):
        assert source is not None
        return _absent_numbers(before, model.float_tensors(), _still_there(before, source))
    kept = _still_there(before, model)
    modules = _modules(model)
    changed = [weight for position, weight in enumerate(before) if position not in kept]
    owners = {weight.module for weight in changed if not weight.owner}
    # an exported program holds shared numbers once: a module that it no longer has fared as the one it shared them with
    return [weight for weight in changed if not weight.owner or weight.module in modules or weight.owner in owners]


def _still_there(before: Sequence[Weight], model: nn.Module) -> dict[int, torch.Tensor]:
    """By the position of each weight that the model still holds, the tensor that is it: by name, or by its bits."""
    names = {weight.name for weight in before}
    found = {name: tensor for name, tensor in _held_beside(model).items() if name in names}
    found |= _float_tensors(model)
    kept = {}
    for position, weight in enumerate(before):
        if weight.name in found and weight.bits.are_of(found[weight.name]):
            kept[position] = found.pop(weight.name)
    missing = [position for position in range(len(before)) if position not in kept]
    forms = {(before[position].bits.shape, before[position].bits.dtype) for position in missing}
    elsewhere = [(bits_of(tensor), tensor) for tensor in found.values() if (tuple(tensor.shape), tensor.dtype) in forms]
    for position in missing:
        place = next((at for at, (bits, _) in enumerate(elsewhere) if before[position].bits.are(bits)), None)
        if place is not None:
            kept[position] = elsewhere.pop(place)[1]
    return kept


def _absent_numbers(
    before: Sequence[Weight], tensors: Iterable[torch.Tensor], kept: Mapping[int, torch.Tensor]
) -> list[Weight]:
    """The weights of which not every number is among those of `tensors`, in whatever order and shape.

    Weights that are not in float32 must be there as they are. `kept` are the numbers of those that were converted.
    """
    import torch

    tensors = list(tensors)
    pool = Numbers(tensor for tensor in tensors if tensor.dtype is torch.float32)

    def is_there(position: int, weight: Weight) -> bool:
        if position not in kept:
            return False
        if weight.bits.dtype is torch.float32:
            return pool.holds(kept[position])
        return any(weight.bits.are_of(other) for other in tensors)

    return [weight for position, weight in enumerate(before) if not is_there(position, weight)]


class Numbers:
    """All numbers of some float32 tensors, sorted once: a model has hundreds of weights to look up."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        import numpy  # every other runtime needs it; torch's sort takes four times the numbers

        self._sorted = numpy.concatenate([numpy.empty(0, numpy.int32), *map(_integers, tensors)])
        self._sorted.sort()

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether every number of the tensor is among them."""
        import numpy

        wanted = _integers(tensor)
        if not len(self._sorted):
            return not len(wanted)
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            found = numpy.searchsorted(self._sorted, part).clip(max=len(self._sorted) - 1)
            if not (self._sorted[found] == part).all():
                return False
        return True


def _integers(tensor: torch.Tensor) -> Any:
    """The bits of float32 numbers, so that NaN equals NaN; zeros of both signs are one, since kernels mix them."""
    import torch

    return (tensor.detach().cpu() + 0.0).contiguous().reshape(-1).view(torch.int32).numpy()


def _float_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that the model holds unpacked, by name: parameters, buffers, and biases within packed modules."""
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        yield _author_name(name), tensor
    for name, module in model.named_modules():
        for own_name, tensor in _packed_biases(module):
            yield _author_name(f"{name}.{own_name}" if name else own_name), tensor


def _held_beside(model: nn.Module) -> dict[str, torch.Tensor]:
    return {_author_name(name): tensor for name, tensor in held_beside(model)}


def _packed_biases(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The biases of a module of torch.ao.nn, which keeps them in floating point beside its int8 weights."""
    import torch

    if not type(module).__module__.startswith("torch.ao.nn"):
        return
    bias = getattr(module, "bias", None)
    if callable(bias) and isinstance(value := bias(), torch.Tensor):
        yield "bias", value
    biases = getattr(module, "get_bias", None)
    if callable(biases):
        for name, value in biases().items():
            if isinstance(value, torch.Tensor):
                yield name, value


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by the names that the author knows."""
    named = model.named_modules(remove_duplicate=False)
    return {_author_name(f"{name}.x").rpartition(".")[0]: module for name, module in named}


def _author_name(name: str) -> str:
    """The name of a parameter without what torch.compile, parametrize and prune put into it."""
    name = author_name(name)
    match = PARAMETRIZED.match(name)
    if match:
        return f"{match[1]}{match[2]}{match[3]}"
    return name.removesuffix("_orig")
