"""int8-weight-only: weights stored in int8 with a scale per row, and worked with in floating point."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pytest_modelopt.optimizing.bisection import Replacing, in_words
from pytest_modelopt.optimizing.describe import modules_in_words, own_bytes, total_bytes, type_name, types_in_words
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import holders, same_view
from pytest_modelopt.optimizing.quantization.aware_training import TrainsQuantized
from pytest_modelopt.optimizing.recipe import Applied, Context, Form
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.quantization.aware_training import Converter
    from pytest_modelopt.optimizing.quantization.int8_weight_only_module import Int8Rows

IN_BLOCKS = ("Linear", "Embedding", "EmbeddingBag")
"""Never wholly in floating point."""
REBUILT = (
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "MultiheadAttention",
    "LSTM",
    "GRU",
    "RNN",
    "LSTMCell",
    "GRUCell",
    "RNNCell",
)
"""Put into floating point as a whole for each call."""
BYTES_OF_A_SCALE = 4
SHARED = "another module shares their weight and keeps it in floating point"


class Int8WeightOnly(TrainsQuantized):
    """Store weights in int8 with one float scale per row, symmetric; activations and arithmetic stay in floating point.

    A row is what makes one output: an output channel, a gate's unit, a word of an Embedding.
    """

    recipe_name: ClassVar[str] = "int8-weight-only"
    summary: ClassVar[str] = "stores weights in int8 and computes in floating point: smaller, not faster"
    changes: ClassVar[tuple[str, ...]] = (*IN_BLOCKS, *REBUILT)
    gives: ClassVar[Form | None] = "packed"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        plan = _Plan(model, context)
        left = _left_in_float(model, plan, context)
        # counted before anything is replaced, since the weights are gone afterwards
        sizes = {module: total_bytes(module) for module in plan.chosen}
        matrices = {
            module: {id(weight): (weight.nbytes, _int8_bytes(weight)) for weight in _weights(module).values()}
            for module in plan.chosen
        }
        model = plan.replace()
        notes = (
            *in_words(plan.kept, modules_in_words, "left as they are"),
            *left,
            *_cost_notes(plan.chosen, sizes, matrices),
        )
        return Applied(model, (*notes, *turn_off_fused_path(model)), unlike_class=named(model, plan.own))

    def to_quantize(self, model: nn.Module, context: Context) -> tuple[Sequence[nn.Module], Converter]:
        return _Plan(model, context).chosen, lambda module: _int8(module, {})


class _Plan:
    """Which modules get int8 weights, and why others do not; made before the first is changed."""

    def __init__(self, model: nn.Module, context: Context) -> None:
        self.kept: dict[nn.Module, str] = {}
        self.chosen: list[nn.Module] = []
        self._model, self._inputs = model, context.example_inputs
        self._rows: dict[Hashable, Int8Rows] = {}
        candidates = context.free(_candidates(model))
        self.own = own_behavior(model, context.example_inputs, candidates)
        for module in candidates:
            reason = self.own.get(module) or _reason_to_keep(module)
            if reason:
                self.kept[module] = reason
            else:
                self.chosen.append(module)
        self._holders = _holders(model)
        self._keep_shared()

    def _keep_shared(self) -> None:
        """Leave out those whose weight is also held by a module that keeps it; they keep theirs, too, and so on."""
        while True:
            chosen = set(self.chosen)
            untied = [
                module
                for module in self.chosen
                if any(not self._holders[id(weight)] <= chosen for weight in _weights(module).values())
            ]
            if not untied:
                return
            self.kept |= dict.fromkeys(untied, SHARED)
            self.chosen = [module for module in self.chosen if module not in self.kept]

    def replace(self) -> nn.Module:
        """The model with the int8 forms of the chosen modules in it; modules that share a weight go together."""
        units: list[tuple[nn.Module, ...]] = []
        for module in self.chosen:
            if not any(module in unit for unit in units):
                sharing = [module]
                for one in sharing:
                    others = [other for weight in _weights(one).values() for other in self._holders[id(weight)]]
                    sharing += [other for other in dict.fromkeys(others) if other not in sharing]
                units.append(tuple(sharing))
        replacing = Replacing(self._model, self._inputs, lambda module: _int8(module, self._rows))
        self.kept |= replacing.replace(units)
        self.chosen = [module for module in self.chosen if module not in self.kept]
        return replacing.model


def _int8(module: nn.Module, rows: dict[Hashable, Int8Rows]) -> nn.Module:
    """The int8 form of a module. `rows` has one object for each weight, whoever shares it."""
    from torch import nn

    from pytest_modelopt.optimizing.quantization.int8_weight_only_module import (
        Int8Embedding,
        Int8EmbeddingBag,
        Int8Linear,
        Int8Rebuilt,
        Int8Rows,
    )

    quantized: dict[str, Int8Rows] = {}
    for name, weight in _weights(module).items():
        if same_view(weight) not in rows:
            rows[same_view(weight)] = Int8Rows(weight)
        quantized[name] = rows[same_view(weight)]
    if isinstance(module, nn.Linear):
        return Int8Linear(module, quantized["weight"])
    if isinstance(module, nn.Embedding):
        return Int8Embedding(module, quantized["weight"])
    if isinstance(module, nn.EmbeddingBag):
        return Int8EmbeddingBag(module, quantized["weight"])
    return Int8Rebuilt(module, quantized)


def _candidates(model: nn.Module) -> list[nn.Module]:
    """Modules of exactly the types that have an int8 form; what belongs to an attention is a part of that."""
    from torch import nn

    attentions = {module for module in model.modules() if isinstance(module, nn.MultiheadAttention)}
    parts = {child for module in attentions for child in module.modules()} - attentions
    return [module for module in of_classes(model, Int8WeightOnly.changes) if module not in parts]


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The matrices of a candidate and its children; biases, also the three-dimensional ones of attention, stay."""
    return {
        name: parameter
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if parameter.dim() > 1 and "weight" in name
    }


def _holders(model: nn.Module) -> dict[int, set[nn.Module]]:
    """For each parameter, by id, the modules that hold its numbers; what an attention's children hold is its own."""
    from torch import nn

    owners: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        owners.setdefault(module, module)
        if isinstance(module, nn.MultiheadAttention):
            owners |= dict.fromkeys(module.modules(), module)
    return {key: {owners[module] for module in modules} for key, modules in holders(model).items()}


def _reason_to_keep(module: nn.Module) -> str:
    import torch
    from torch import nn

    weights = _weights(module)
    if not weights:
        return "they hold no weight of their own"
    if any(type(weight.data) is not torch.Tensor or weight.layout is not torch.strided for weight in weights.values()):
        return "their weights are sparse or of a tensor class of their own"
    if not all(weight.is_floating_point() for weight in weights.values()):
        return "their weights are not in floating point"
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        return "a weight is infinite or NaN, for which there is no scale"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
        return "max_norm makes every call write into their weight"
    if sum(_int8_bytes(weight) for weight in weights.values()) >= sum(weight.nbytes for weight in weights.values()):
        return "their rows are so short that int8 and a scale for each take as many bytes"
    return ""


def _int8_bytes(weight: torch.Tensor) -> int:
    return weight.numel() + BYTES_OF_A_SCALE * weight.shape[0]


def _left_in_float(model: nn.Module, plan: _Plan, context: Context) -> tuple[str, ...]:
    """Notes on the matrices that the technique does not reach."""
    from torch import nn

    planned = {child for module in (*plan.chosen, *plan.kept, *context.kept) for child in module.modules()}
    own_forward: list[tuple[str, int]] = []
    others: list[tuple[str, int]] = []
    kinds = tuple(getattr(nn, kind) for kind in Int8WeightOnly.changes)
    for name, module in model.named_modules():
        if module in planned or ".parametrizations." in f".{name}." or not own_bytes(module):
            continue
        found = others
        word = type_name(module)
        if isinstance(module, kinds):
            found = own_forward
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)) or found is own_forward:
            found.append((word, own_bytes(module)))
    notes = []
    if own_forward:
        notes.append(
            f"{types_in_words(own_forward)} left in floating point: a subclass may use its weight in its own way, so "
            f"only torch's own classes are replaced"
        )
    if others:
        notes.append(f"{types_in_words(others)} left in floating point: int8-weight-only has no form of them")
    return tuple(notes)


def _cost_notes(
    chosen: list[nn.Module], sizes: Mapping[nn.Module, int], matrices: Mapping[nn.Module, dict[int, tuple[int, int]]]
) -> tuple[str, ...]:
    """What a call has to make in floating point; `matrices`: bytes of each weight, in floating point and in int8."""
    from pytest_modelopt.optimizing.quantization.int8_weight_only_module import BLOCK_WEIGHTS

    in_blocks = [module for module in chosen if type_name(module) in IN_BLOCKS]
    rebuilt = [module for module in chosen if type_name(module) in REBUILT]
    notes = []
    if in_blocks:
        notes.append(
            f"{modules_in_words(in_blocks)} compute in floating point: a call turns at most {BLOCK_WEIGHTS:,} "
            "weights of "
            "a Linear, and the rows that an Embedding looks up, back into it at a time. This is made for size: large "
            "layers stay about as fast, small ones get slower"
        )
    if rebuilt:
        largest = max(sizes[module] for module in rebuilt)
        weights = {key: sizes for module in chosen for key, sizes in matrices[module].items()}.values()
        held = sum(int8 for _, int8 in weights) + largest
        if held > (floats := sum(size for size, _ in weights)):
            peak = (
                f"with the int8 weights that is {format_bytes(held)} where the original holds {format_bytes(floats)}, "
                "so the peak memory of a call rises though the size falls"
            )
        else:
            peak = "the peak memory of a call falls by less than the size"
        words = types_in_words((type_name(module), sizes[module]) for module in rebuilt)
        notes.append(
            f"{words} rebuild all of their float weights in every call, up to {format_bytes(largest)} at a time: {peak}"
        )
    return tuple(notes)
