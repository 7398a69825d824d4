"""A record in which every field of every dataclass holds something, made from their types, and a walk over its strings.

A field that is added to the record later is filled and walked over by itself.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from pytest_modelopt.results.answers import Agreement, Slices
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Reason, Verdict

_PLAIN: dict[Any, Any] = {str: "x", int: 3, float: 0.5, bool: True}


def filled(kind: Any) -> Any:
    """A value of the type in which nothing that may be there is missing; lists have one entry."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: filled(hints[field.name]) for field in fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return filled(next(each for each in arguments if each is not type(None)))
    if origin is tuple:
        return tuple(map(filled, arguments if arguments[-1] is not Ellipsis else arguments[:1]))
    if origin is dict:
        return {"figure": filled(arguments[1])}
    return _PLAIN[kind]


def filled_record() -> Record:
    """One case of each kind that a report tells differently: in error, broken, against a base of each status."""
    made: Record = filled(Record)
    limit = replace(made.cases[0].limits[0], name="max_size")
    broken = replace(
        made.cases[0],
        model="m",
        limits=(limit,),
        verdicts=(Verdict(limit, "fail", 2.0, Reason("measured")),),
        agreement=Agreement(360, 2, 1, 3, made.cases[0].agreement.changed if made.cases[0].agreement else None),
        slices=Slices(("a", "b"), False, (9, 9), (0.1, 0.2), (2, 2), (1, 1)),
        timing=_timing(made.cases[0]),
        error=None,
        expected=None,
        base=None,
        machine=0,
    )
    error = replace(broken, recipe="in error", error=CaseError("load", "message", "output"), verdicts=())
    base = Base("base", "compared", "why", ("note",))
    bases = [replace(base, status=status) for status in typing.get_args(typing.get_type_hints(Base)["status"])]
    reason = Reason("measured", {"by_process": True})
    outcomes = [
        Verdict(limit, outcome, 2.0, reason, 1.0, 3.0, "fail" if outcome == "waived" else None)
        for outcome in ("waived", "pass", "inconclusive", "not measured")
    ]
    cases = [
        broken,
        error,
        replace(broken, limits=(replace(limit, name="unjudged"),), verdicts=(), machine=1),
        replace(broken, expected=made.cases[0].expected),
        *(replace(broken, base=each, verdicts=()) for each in bases),
        *(replace(broken, verdicts=(each,)) for each in outcomes),
    ]
    (layers,) = made.sensitivity
    scored = replace(layers, costs=tuple(replace(cost, why="") for cost in layers.costs))
    named = [replace(case, id=f"id{index}", recipe=f"recipe{index}") for index, case in enumerate(cases)]
    return replace(
        made,
        cases=tuple(named),
        complete=False,
        strict=False,
        timed_limits=1,
        other_machines=(made.environment,),
        sensitivity=(layers, scored),
    )


def _timing(case: Case) -> Any:
    assert case.timing is not None
    return replace(case.timing, pairs=case.timing.pairs * 20, variant_calls_ns=case.timing.variant_calls_ns * 20)


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of `value` with every string, keys included, changed; what a Literal allows stays."""
    return _changed(value, type(value), change)


def _changed(value: Any, kind: Any, change: Callable[[str], str]) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        return replace(
            value,
            **{field.name: _changed(getattr(value, field.name), hints[field.name], change) for field in fields(value)},
        )
    if isinstance(value, (tuple, list)):
        return tuple(_changed(each, _inner(kind), change) for each in value)
    if isinstance(value, dict):
        return {change(key): _changed(each, _inner(kind), change) for key, each in value.items()}
    return change(value) if isinstance(value, str) and not _is_literal(kind) else value


def _inner(kind: Any) -> Any:
    """What a tuple, or the values of a dict, are made of."""
    for each in (kind, *typing.get_args(kind)):
        if typing.get_origin(each) is tuple:
            return typing.get_args(each)[0]
        if typing.get_origin(each) is dict:
            return typing.get_args(each)[1]
    return object


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Literal or any(_is_literal(each) for each in typing.get_args(kind))


def string_fields(kind: Any = Record, seen: set[Any] | None = None) -> set[tuple[str, str]]:
    """(class, field) of every field of the record's dataclasses that can hold text of the record's author."""
    seen = set() if seen is None else seen
    if kind in seen:
        return set()
    seen.add(kind)
    found: set[tuple[str, str]] = set()
    if is_dataclass(kind) and isinstance(kind, type):
        for name, hint in typing.get_type_hints(kind).items():
            if _holds_text(hint):
                found.add((kind.__name__, name))
            found |= string_fields(hint, seen)
    for each in typing.get_args(kind):
        found |= string_fields(each, seen)
    return found


def _holds_text(hint: Any) -> bool:
    return hint is str or (not _is_literal(hint) and any(_holds_text(each) for each in typing.get_args(hint)))


_OF_NUMBERS: dict[Any, bool] = {}


def _is_of_numbers(kind: Any) -> bool:
    """Whether no value of a dataclass holds a string: pairs of blocks, of which a record has thousands."""
    if kind not in _OF_NUMBERS:
        is_class = is_dataclass(kind)
        _OF_NUMBERS[kind] = is_class and all(
            hint in (int, float, bool) for hint in typing.get_type_hints(kind).values()
        )
    return _OF_NUMBERS[kind]


def strings(value: Any, path: tuple[str, str] = ("", "")) -> Iterator[tuple[tuple[str, str], str]]:
    """((class, field), text) of every string in a value, Literals included."""
    if _is_of_numbers(type(value)):
        return
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from strings(getattr(value, field.name), (type(value).__name__, field.name))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from strings(each, path)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield path, key
            yield from strings(each, path)
    elif isinstance(value, str):
        yield path, value


def only(record: Record, path: tuple[str, str], change: Callable[[str], str]) -> Record:
    """A copy in which only the strings of that field are changed."""
    wanted = [found for found, _ in strings(record)]
    numbers = iter(range(len(wanted)))
    order = [path == found for found, _ in strings(record)]

    def changed(text: str) -> str:
        return change(text) if order[next(numbers)] else text

    result: Record = _walk(record, changed)
    return result


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """In the order of `strings`, Literals included."""
    if _is_of_numbers(type(value)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _walk(getattr(value, field.name), change) for field in fields(value)})
    if isinstance(value, (tuple, list)):
        return tuple(_walk(each, change) for each in value)
    if isinstance(value, dict):
        return {change(key): _walk(each, change) for key, each in value.items()}
    return change(value) if isinstance(value, str) else value
