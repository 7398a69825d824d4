"""Attention heads: where they are in a model, how much each weighs, and their removal as a whole.

Hand-written attention is known by an attribute that holds the number of heads, beside three Linear layers named as
query, key and value, or one for all three. Which layer reads the heads' outputs, and in which order, is found by
silencing a head and looking where zeros arrive. nn.MultiheadAttention is replaced by a module of ours.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.own_behavior import own_forward
from pytest_modelopt.optimizing.modules.shared_tensors import replace_modules
from pytest_modelopt.optimizing.pruning.structured.observing import MIXED_UP, Backup, narrow, observe, zeroed

if TYPE_CHECKING:
    import torch
    from torch import nn

HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "n_head", "num_head", "nheads", "nhead", "heads")
"""Attributes of the user's module that hold the number of heads."""

INNER_WIDTHS = (
    "all_head_size",
    "inner_dim",
    "attn_dim",
    "attention_dim",
    "embed_dim",
    "embedding_dim",
    "emb_dim",
    "hidden_size",
    "hidden_dim",
    "d_model",
    "model_dim",
    "dim",
    "n_embd",
    "inner_size",
    "total_dim",
    "split_size",
)
"""Attributes that may hold the width of all heads together, where they are equal to it."""

ROLES = {
    "query": {"q", "query", "queries", "wq"},
    "key": {"k", "key", "keys", "wk"},
    "value": {"v", "value", "values", "wv"},
}
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

GROUPED = "their query, key and value layers differ in width (grouped queries), so that no head stands alone"
NO_READER = "no layer was found that reads the outputs of the heads, one after the other"


@dataclass
class Attention:
    """One attention and its heads. For nn.MultiheadAttention, `owner` is what would replace it."""

    owner: nn.Module
    projections: tuple[nn.Linear, ...]
    """Query, key and value, or one layer for all of them."""
    rows: torch.Tensor
    """(heads, rows): which outputs of each projection belong to a head."""
    outputs: tuple[nn.Linear, ...]
    """The layers that read the heads' outputs."""
    heads: int
    replaces: nn.MultiheadAttention | None = None

    @property
    def width(self) -> int:
        """Of all heads together."""
        return self.outputs[0].in_features

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """For notes: what the user's model holds."""
        return (self.replaces,) if self.replaces is not None else (*self.projections, *self.outputs)

    def columns(self, heads: Sequence[int]) -> list[int]:
        """The inputs of `outputs` that these heads write."""
        size = self.width // self.heads
        return [head * size + position for head in heads for position in range(size)]

    def scores(self, taylor: bool) -> torch.Tensor:
        """For each head, the sum of its squared weights, or of |weight * gradient|, over all layers."""
        import torch

        total = torch.zeros(self.heads, dtype=torch.float64)
        for layer in self.projections:
            total += _scored(layer, taylor).sum(1)[self.rows].sum(1)
        for layer in self.outputs:
            total += _scored(layer, taylor).sum(0).view(self.heads, -1).sum(1)
        return total

    def least_important(self, ratio: float, round_to: int, taylor: bool) -> list[int]:
        """The heads to remove: at most the share `ratio`, so that what remains is a multiple of `round_to` wide."""
        size = self.width // self.heads
        step = round_to // math.gcd(round_to, size)
        kept = math.ceil(round(self.heads * (1 - ratio), 6) / step) * step
        if kept >= self.heads:
            return []
        order = self.scores(taylor).argsort(stable=True)
        return sorted(order[: self.heads - kept].tolist())


@dataclass
class Found:
    """The attentions of a model, and those that were seen but cannot lose heads, by the reason."""

    attentions: list[Attention] = field(default_factory=list)
    refused: dict[str, list[nn.Module]] = field(default_factory=dict)

    def refuse(self, reason: str, *modules: nn.Module) -> None:
        known = self.refused.setdefault(reason, [])
        known.extend(module for module in modules if module not in known)


def find(model: nn.Module, inputs: Inputs, tied: set[int]) -> Found:
    """Every attention with more than one head."""
    from torch import nn

    found = Found()
    taken: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            _add_multihead(found, module, tied)
            continue
        name = next((name for name in HEAD_COUNTS if type(vars(module).get(name)) is int), None)
        if name is None or vars(module)[name] < 2:
            continue
        refusals: list[tuple[str, tuple[nn.Linear, ...]]] = []
        for projections, rows in _projections(module, vars(module)[name], found):
            if not taken.isdisjoint(projections):
                continue
            attention = None
            reason = _reason_to_keep(projections, tied)
            if not reason:
                attention = _with_reader(model, inputs, module, projections, rows)
                reason = NO_READER if attention is None else _reason_to_keep(attention.outputs, tied)
            if attention is not None and not reason:
                taken.update([*projections, *attention.outputs])
                found.attentions.append(attention)
                break
            if len(projections) > 1 or _is_fused_name(module, projections[0]):
                refusals.append((reason, projections))
        else:
            for reason, projections in refusals:
                found.refuse(reason, *projections)
    return found


def _add_multihead(found: Found, module: nn.MultiheadAttention, tied: set[int]) -> None:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.pruning.fewer_heads_module import FewerHeads

    if module.num_heads < 2:
        return
    reason = ""
    if type(module) is not nn.MultiheadAttention:
        reason = "not exactly nn.MultiheadAttention (a subclass or parametrized)"
    elif module.bias_k is not None or module.add_zero_attn:
        reason = "their heads also attend to bias_k or to an added zero"
    elif any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        reason = "they carry forward hooks, which would be lost"
    elif own := next(filter(None, map(own_forward, module.modules())), ""):
        reason = own
    elif any(id(parameter) in tied for parameter in module.parameters()):
        reason = "another module shares their weight"
    if reason:
        found.refuse(reason, module)
        return
    new = FewerHeads(module)
    rows = torch.arange(module.embed_dim).view(module.num_heads, -1)
    projections = (new.q_proj, new.k_proj, new.v_proj)
    found.attentions.append(Attention(new, projections, rows, (new.out_proj,), module.num_heads, module))


def _projections(module: nn.Module, heads: int, found: Found) -> Iterator[tuple[tuple[nn.Linear, ...], torch.Tensor]]:
    """What may be the projections of `module`, with the rows of each head, the likeliest first."""
    import torch
    from torch import nn

    linear = {name: child for name, child in module._modules.items() if isinstance(child, nn.Linear)}
    by_role = {role: [child for name, child in linear.items() if _words(name) & words] for role, words in ROLES.items()}
    if all(len(layers) == 1 for layers in by_role.values()):
        separate = tuple(dict.fromkeys(layers[0] for layers in by_role.values()))
        widths = {layer.out_features for layer in separate}
        if len(widths) > 1:
            found.refuse(GROUPED, *separate)
        elif not separate[0].out_features % heads:
            yield separate, torch.arange(separate[0].out_features).view(heads, -1)
        return
    for layer in dict.fromkeys(linear.values()):
        if layer.out_features % (3 * heads) == 0:
            rows = torch.arange(layer.out_features)
            yield (layer,), rows.view(3, heads, -1).transpose(0, 1).reshape(heads, -1)
            yield (layer,), rows.view(heads, -1)


def _words(name: str) -> set[str]:
    return {word.lower() for word in WORDS.findall(name)}


def _is_fused_name(module: nn.Module, layer: nn.Module) -> bool:
    return any("qkv" in name.lower() for name, child in module._modules.items() if child is layer)


def _reason_to_keep(layers: Sequence[nn.Linear], tied: set[int]) -> str:
    from torch import nn
    from torch.nn.utils import parametrize

    if any(id(parameter) in tied for layer in layers for parameter in layer.parameters(recurse=False)):
        return "another module shares their weight"
    if any(
        parametrize.is_parametrized(layer) or not isinstance(layer._parameters.get("weight"), nn.Parameter)
        for layer in layers
    ):
        return "their weight is reparametrized"
    return ""


def _with_reader(
    model: nn.Module, inputs: Inputs, owner: nn.Module, projections: tuple[nn.Linear, ...], rows: torch.Tensor
) -> Attention | None:
    """The attention, if silencing a head's rows brings zeros to just its columns of some layer."""
    from torch import nn

    heads = len(rows)
    width = rows.numel() // (3 if len(projections) == 1 else 1)
    readers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.in_features == width and module not in projections
    ]
    before = _zero_columns(model, inputs, readers)
    for head in (0, heads - 1):
        parts = [(layer.weight, 0, rows[head].tolist()) for layer in projections]
        parts += [(layer.bias, 0, rows[head].tolist()) for layer in projections if layer.bias is not None]
        with zeroed(parts):
            after = _zero_columns(model, inputs, readers)
        readers = [layer for layer in after if layer in before and _only_head(before[layer], after[layer], head, heads)]
    return Attention(owner, projections, rows, tuple(readers), heads) if readers else None


def _only_head(before: torch.Tensor, after: torch.Tensor, head: int, heads: int) -> bool:
    """Whether exactly the columns of this head are zero that were not zero before."""
    changed = (after & ~before).view(heads, -1)
    others = [index for index in range(heads) if index != head]
    return bool(changed[head].any()) and bool(after.view(heads, -1)[head].all()) and not bool(changed[others].any())


def _zero_columns(model: nn.Module, inputs: Inputs, layers: Sequence[nn.Linear]) -> dict[nn.Linear, torch.Tensor]:
    """For each of the layers that is called, which of its inputs are zero throughout one call of the model."""
    import torch

    found: dict[nn.Linear, torch.Tensor] = {}

    def look(layer: Any, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], torch.Tensor):
            zeros = (args[0] == 0).flatten(0, -2).all(0) if args[0].dim() > 1 else args[0] == 0
            found[layer] = zeros & found[layer] if layer in found else zeros

    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad(), unfused():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def remove(model: nn.Module, inputs: Inputs, attention: Attention, removed: list[int]) -> tuple[nn.Module, str]:
    """The model without these heads and '', or the model as it was and the reason."""
    kept = [head for head in range(attention.heads) if head not in removed]
    if attention.replaces is not None:
        return _remove_by_replacing(model, inputs, attention, attention.replaces, kept, removed)
    columns = attention.columns(removed)
    with zeroed((layer.weight, 1, columns) for layer in attention.outputs):
        expected = observe(model, inputs, attention.outputs)
    backup = Backup([attention.owner, *attention.projections, *attention.outputs])
    reason = error = ""
    for names in _attributes_to_fix(attention):
        _narrow(attention, kept, names)
        try:
            difference = expected.difference(observe(model, inputs, attention.outputs))
        except Exception as problem:
            difference = "the model's code does not let them lose heads"
            error = error or f" ({last_line(problem)})"
        if not difference:
            return model, ""
        backup.restore()
        reason = reason or difference.replace(MIXED_UP, "the remaining heads would no longer answer as they did")
    return model, reason + error


def _remove_by_replacing(
    model: nn.Module,
    inputs: Inputs,
    attention: Attention,
    original: nn.MultiheadAttention,
    kept: list[int],
    removed: list[int],
) -> tuple[nn.Module, str]:
    new: Any = attention.owner
    with zeroed([(original.out_proj.weight, 1, attention.columns(removed))]):
        expected = observe(model, inputs, [original])
    _narrow(attention, kept, ())
    new.keep(kept)
    model = replace_modules(model, lambda module: new if module is original else None)
    try:
        difference = expected.difference(observe(model, inputs, [new]))
    except Exception as problem:
        difference = f"the model's code reads more of them than their outputs ({last_line(problem)})"
    if difference:
        model = replace_modules(model, lambda module: original if module is new else None)
    return model, difference.replace(MIXED_UP, "the model's code uses more of them than their outputs")


def _attributes_to_fix(attention: Attention) -> Iterator[tuple[str, ...]]:
    """Sets of the owner's attributes to change, the numbers of heads always, the largest set first."""
    attributes = vars(attention.owner)
    counts = tuple(name for name in HEAD_COUNTS if attributes.get(name) == attention.heads)
    widths = [name for name in INNER_WIDTHS if attributes.get(name) == attention.width]
    for size in range(len(widths), -1, -1):
        for chosen in itertools.combinations(widths, size):
            yield (*counts, *chosen)


def _narrow(attention: Attention, kept: list[int], attributes: Sequence[str]) -> None:
    import torch

    width = len(kept) * attention.width // attention.heads
    columns = torch.tensor(attention.columns(kept))
    rows = attention.rows[kept].flatten().sort().values
    for layer in attention.projections:
        narrow(layer, 0, rows)
    for layer in attention.outputs:
        narrow(layer, 1, columns)
    for name in attributes:
        setattr(attention.owner, name, len(kept) if name in HEAD_COUNTS else width)


def _scored(layer: nn.Linear, taylor: bool) -> torch.Tensor:
    weight = layer.weight.detach().double().cpu()
    if not taylor:
        return weight.square()
    assert layer.weight.grad is not None
    return (weight * layer.weight.grad.double().cpu()).abs()
