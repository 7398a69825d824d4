"""Any record: values of the types that its fields declare, for hypothesis."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hypothesis import strategies as st

from pytest_modelopt.results.answers import Agreement, Changed, Repeat, Slices
from pytest_modelopt.results.layer_costs import LayerCost, LayerGroup
from pytest_modelopt.results.timed_pairs import TimedPair, Timing
from pytest_modelopt.results.verdicts import Waiver

_ABOVE_ZERO = {
    "launch", "reference_ns", "variant_ns", "reference_calls", "variant_calls",
    "reference_block_ns", "variant_block_ns",
}  # fmt: skip
_NOT_NEGATIVE = {
    "at_ms", "reference_warming_ns", "variant_warming_ns", "canary_ns",
    "reference_delayed_ns", "variant_delayed_ns",
}  # fmt: skip


_NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)
_FEW = st.integers(0, 9)


def _columns(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[tuple[Any, ...], ...]]:
    """Equally long columns."""
    rows = st.lists(st.tuples(*kinds), max_size=3)
    return rows.map(lambda drawn: tuple(tuple(row[index] for row in drawn) for index in range(len(kinds))))


@st.composite
def _agreements(draw: st.DrawFn) -> Agreement:
    lost, won, index, target, before, after = (*draw(st.tuples(_FEW, _FEW)), *draw(_columns(_FEW, *(3 * [_NUMBERS]))))
    changed = Changed(index, draw(st.sampled_from([target, None])), before, after)
    return Agreement(draw(_FEW) + lost + won + 1, lost, won, won, draw(st.sampled_from([changed, None])))


@st.composite
def _slices(draw: st.DrawFn) -> Slices:
    drop = st.none() | st.floats(-1, 1)
    names, drops, lost, won = draw(_columns(st.text(max_size=20), drop, _FEW, _FEW))
    examples = tuple(less + more + 1 for less, more in zip(lost, won, strict=True))
    counted = draw(st.booleans())
    return Slices(names, draw(st.booleans()), examples, drops, lost if counted else None, won if counted else None)


@st.composite
def _layer_costs(draw: st.DrawFn) -> LayerCost:
    names = draw(st.lists(st.text(max_size=20), min_size=1, max_size=3).map(tuple))
    sizes, examples, figure = st.integers(0, 2**63 - 1), draw(st.integers(9, 2**63 - 1)), any_value(float | None)
    group = LayerGroup(names, draw(st.text(max_size=20)), draw(sizes), draw(sizes))
    saved, flips = draw(st.none() | _NUMBERS), draw(st.none() | _FEW)
    return LayerCost(group, saved, examples, flips, draw(figure), draw(figure), draw(figure), draw(st.text(max_size=9)))


def _repeats() -> st.SearchStrategy[Repeat]:
    return st.builds(Repeat, st.integers(9, 2**63 - 1), st.none() | st.floats(-9, 9), st.none() | _FEW)


def _waivers() -> st.SearchStrategy[Waiver]:
    dates, texts = st.dates().map(str), st.text(max_size=20)
    ceilings = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(Waiver, dates, texts, texts, _NUMBERS, texts, ceilings, texts)


@st.composite
def _timings(draw: st.DrawFn) -> Timing:
    """Pairs whose launches and moments do not fall from one to the next."""
    hints = typing.get_type_hints(TimedPair)
    pair_of = st.builds(TimedPair, **{name: any_value(hint, name) for name, hint in hints.items()})
    pairs = draw(st.lists(pair_of, max_size=3))
    launches, moments = sorted(pair.launch for pair in pairs), sorted(pair.at_ms for pair in pairs)
    ordered = [replace(pair, launch=one, at_ms=at) for pair, one, at in zip(pairs, launches, moments, strict=True)]
    others = {name: any_value(hint, name) for name, hint in typing.get_type_hints(Timing).items() if name != "pairs"}
    calls = st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=3).map(tuple)
    each_pair = st.lists(calls, min_size=len(pairs), max_size=len(pairs)).map(tuple)
    others["variant_calls_ns"] = st.just(()) | each_pair
    return draw(st.builds(Timing, st.just(tuple(ordered)), **others))


_CONSISTENT: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
    Agreement: _agreements,
    LayerCost: _layer_costs,
    Slices: _slices,
    Repeat: _repeats,
    Timing: _timings,
    Waiver: _waivers,
}
"""Types of which not every value is one: their fields must fit each other."""


def any_value(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Any value of a type that the record uses, by the types that its fields declare."""
    if kind in _CONSISTENT:
        return _CONSISTENT[kind]()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if name == "of_targets":
        return st.just(())  # names of those that the record has
    if name == "targets":
        return st.lists(any_value(arguments[0]), max_size=3, unique_by=lambda target: target.name).map(tuple)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*map(any_value, arguments))
    if origin is tuple:
        return st.lists(any_value(arguments[0]), max_size=3).map(tuple)
    if origin is list:
        return st.lists(any_value(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(any_value(arguments[0]), any_value(arguments[1]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([any_value(each) for each in arguments])
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{each.name: st.deferred(_deferred(hints, each.name)) for each in fields(kind)})
    if kind is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if name == "machine":
        return st.just(0)  # the one that every record has
    if kind is int:
        least = 1 if name in _ABOVE_ZERO else 0 if name in _NOT_NEGATIVE else -(2**63) + 1
        return st.integers(least, 2**63 - 1)
    return {bool: st.booleans(), str: st.text(max_size=20), type(None): st.none()}[kind]


def _deferred(hints: dict[str, Any], name: str) -> Any:
    return lambda: any_value(hints[name], name)
