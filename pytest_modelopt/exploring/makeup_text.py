"""The makeup of a model and the recipes that can pay on it, in words that are printed before anything is tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from pytest_modelopt.editing.first_budgets import format_untried
from pytest_modelopt.exploring.space import Space
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage
from pytest_modelopt.results.measurement import LayerCoverage, Measurement

_SHOWN = 5
"""Kinds of layers, and single layers, that are printed."""


def lines(
    name: str,
    original: Measurement,
    layers: Sequence[LayerCoverage],
    space: Space,
    derived: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[str]:
    """Weights and multiply-adds by kind and by layer, where the peak of memory lies, what runtimes take, and what can
    pay.

    `derived`: as in `worth_trying`.
    """
    weights = sum(layer.weight_bytes for layer in layers)
    work = sum(layer.multiply_adds for layer in layers)
    counted = f", {format_number(work / 1e6)} million multiply-adds a call" if work else ""
    yield f"{name}: {format_bytes(weights)} of weights{counted}"
    by_kind: Counter[str] = Counter()
    work_of: Counter[str] = Counter()
    for layer in layers:
        by_kind[layer.type] += layer.weight_bytes
        work_of[layer.type] += layer.multiply_adds
    yield from _table(by_kind, work_of, weights, work, "kind")
    of_layer = Counter({f"{layer.name} ({layer.type})": layer.weight_bytes for layer in layers})
    work_in = Counter({f"{layer.name} ({layer.type})": layer.multiply_adds for layer in layers})
    if len(layers) > len(by_kind):
        yield from _table(of_layer, work_in, weights, work, "layer")
    yield from _memory(original)
    yield from _runtimes(layers, space, derived)
    yield f"{len(space.recipes)} recipes can pay and are tried"
    yield from format_untried(space.impossible)


def _table(weights_of: Counter[str], work_of: Counter[str], weights: int, work: int, what: str) -> Iterator[str]:
    """The largest by weights or by work, whichever is more of the whole."""
    shares = {name: (_share(weights_of[name], weights), _share(work_of[name], work)) for name in weights_of}
    largest = sorted(shares, key=lambda name: -max(shares[name]))
    for name in largest[:_SHOWN]:
        of_weights, of_work = shares[name]
        of_calls = f", {format_percentage(of_work)} of the multiply-adds" if work else ""
        yield f"  {what} {name}: {format_percentage(of_weights)} of the weights{of_calls}"
    if rest := largest[_SHOWN:]:
        yield f"  and {len(rest)} more"


def _runtimes(layers: Sequence[LayerCoverage], space: Space, derived: Mapping[str, str]) -> Iterator[str]:
    """What each other runtime that runs here takes of the model, by its recipes of one step."""
    weights = sum(layer.weight_bytes for layer in layers)
    of_step = [recipe.steps[0] for recipe in space.recipes if len(recipe.steps) == 1]
    for step in (each for each in of_step if each.gives == "runtime"):
        if not step.changes:
            yield f"  {step.canonical()} takes the model as a whole, in {' or '.join(step.takes)}"
            continue
        of = [layer for layer in layers if {layer.type, derived.get(layer.type)} & set(step.changes)]
        share = _share(sum(layer.weight_bytes for layer in of), weights)
        kinds = ", ".join(sorted({layer.type for layer in of}))
        yield f"  {step.canonical()} changes {kinds}: {format_percentage(share)} of the weights"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _memory(original: Measurement) -> Iterator[str]:
    weights, call, whole = original.weights_bytes, original.call_peak_bytes, original.memory_bytes
    if weights is None or call is None or not whole:
        return
    mostly = "weights" if weights >= call else "activations"
    makeup = original.observations.makeup if original.observations is not None else None
    where = f", in {makeup.peak_in}" if makeup is not None and makeup.peak_in else ""
    yield (
        f"  memory of a call {format_bytes(whole)}, mostly {mostly}: {format_bytes(weights)} of weights, and up to "
        f"{format_bytes(call)} that the call asks for{where}"
    )
