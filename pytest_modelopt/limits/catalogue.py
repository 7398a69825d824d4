"""The catalogue of limits: those that the modules of this room state, and how budgets are put together."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence

from pytest_modelopt import limits as room
from pytest_modelopt.limits.kind import LimitKind
from pytest_modelopt.limits.latency import TimedKind
from pytest_modelopt.limits.spelling import did_you_mean, nearest, shown
from pytest_modelopt.limits.units import UnitError
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.timed_pairs import TimedCall
from pytest_modelopt.results.verdicts import Level, Limit, ceiling_of
from pytest_modelopt.statistics.samples import Samples

_ORDER = ("memory", "size", "latency", "loading", "generation", "accuracy", "slices", "flips", "coverage")
_ORDER_AGAINST_BASE = ("growth", "accuracy", "latency")


def _stated(attribute: str, order: Sequence[str]) -> Iterator[LimitKind]:
    """The limits in `attribute` of each module of this room that has it: families of the order first, then others."""
    names = {module.name for module in pkgutil.iter_modules(room.__path__)} - {"catalogue"}
    for name in (*order, *sorted(names.difference(order))):
        yield from getattr(importlib.import_module(f"{room.__name__}.{name}"), attribute, ())


LIMITS: dict[str, LimitKind] = {
    kind.name: kind for kind in (*_stated("LIMITS", _ORDER), *_stated("AGAINST_BASE", _ORDER_AGAINST_BASE))
}
"""Every limit by name, in the order in which budgets and tables list them."""

BUDGET_LIMITS = {name: kind for name, kind in LIMITS.items() if kind.against == "original"}
ORIGINAL_LIMITS = {name: kind for name, kind in BUDGET_LIMITS.items() if kind.is_absolute}
CANDIDATE_LIMITS = {name: kind for name, kind in BUDGET_LIMITS.items() if not kind.is_about_recipe}
REGRESSION_LIMITS = {name: kind for name, kind in LIMITS.items() if kind.against == "base"}

DESCRIPTION_OF_LEVEL = "`error` fails the test when the limit is broken (the default), `warn` only warns."
LEVELS: tuple[Level, ...] = ("error", "warn")
INFERENCES: tuple[Inference, ...] = ("set", "population")


def parse_value(name: str, raw: object, *, unit_interval: bool | None = None) -> float:
    """The value of limit `name` in its base unit.

    `unit_interval` says whether the metric lies in 0..1, None where that is not known; only accuracy limits ask for it.

    Raises:
        UnitError: if `raw` is not a value of this limit, or there is no such limit.
    """
    if name not in LIMITS:
        raise UnitError(unknown_limit(name))
    return LIMITS[name].parse(raw, unit_interval=unit_interval)


def parse_level(raw: object) -> Level:
    """`error` or `warn`.

    Raises:
        UnitError: if it is anything else.
    """
    for level in LEVELS:
        if raw == level:
            return level
    guess = did_you_mean(raw, LEVELS) if isinstance(raw, str) else f"; the valid ones are {', '.join(LEVELS)}"
    raise UnitError(f"there is no level {shown(raw)}{guess}")


def parse_inference(raw: object) -> Inference:
    """`set` or `population`.

    Raises:
        UnitError: if it is anything else.
    """
    for inference in INFERENCES:
        if raw == inference:
            return inference
    near = nearest(raw, INFERENCES) if isinstance(raw, str) else None
    raise UnitError(
        f"{shown(raw)} does not say what limits on accuracy are about; write `set` for these very examples, or "
        f"`population` for all that they were drawn from{f'; did you mean {near!r}?' if near else ''}"
    )


def misfit(limit: Limit, metric: str | None) -> str | None:
    """Why a limit that was read before its metric was known does not fit that metric, as a sentence, or None."""
    kind = LIMITS[limit.name]
    if not kind.is_of_score:
        return None
    if kind.no_drop(metric):
        return f"{limit.name}: {kind.no_drop(metric)}"
    try:
        kind.parse(limit.text, unit_interval=in_unit_interval(metric))
    except UnitError as error:
        return f"{limit.name}: {error}"
    return None


def is_open(
    limits: Sequence[Limit], samples: Samples, timed_limits: int, call: TimedCall = "whole", finalists: int = 1
) -> bool:
    """Whether one of `limits`, or the ceiling of its waiver, is still undecided after these pairs, which are of `call`.
    All are timed; those of other calls are not asked."""
    ceilings = [ceiling for limit in limits if (ceiling := ceiling_of(limit)) is not None]
    kinds = [(limit, LIMITS[limit.name]) for limit in (*limits, *ceilings)]
    return any(
        kind.is_open(limit, samples, timed_limits, finalists)
        for limit, kind in kinds
        if isinstance(kind, TimedKind) and kind.call == call
    )


def merge(closest_first: Sequence[tuple[Limit, ...]]) -> tuple[Limit, ...]:
    """One budget of several: for each limit the closest statement wins. The order is the catalogue's."""
    chosen: dict[str, Limit] = {}
    for limits in closest_first:
        for limit in limits:
            chosen.setdefault(limit.name, limit)
    return tuple(chosen[name] for name in LIMITS if name in chosen)


def is_looser(name: str, value: float, than: float, *, higher_is_better: bool | None) -> bool | None:
    """Whether a limit of `value` allows more than one of `than`.

    None where nobody knows: the floor of a score, in a metric of which `higher_is_better` is None.
    """
    if value == than:
        return False
    upwards = LIMITS[name].direction == "max"
    if LIMITS[name].unit == "score":
        if higher_is_better is None:
            return None
        upwards = not higher_is_better
    return (value > than) == upwards


def unknown_limit(name: str, known: Iterable[str] = LIMITS) -> str:
    """The sentence that refuses a limit that is not in the catalogue, or not among those that are `known` there."""
    near = nearest(name, LIMITS)
    return f"unknown limit {shown(name)}{did_you_mean(name, [near] if near else known)}"


def misplaced(name: str, *, below_regression: bool) -> str:
    """Where a limit belongs that stands on the wrong side of `regression:`; else empty."""
    if name in REGRESSION_LIMITS and not below_regression:
        return f"`{name}` is a limit against the base; move it below `regression:` of the model, or of the recipe"
    if name in BUDGET_LIMITS and below_regression:
        return (
            f"`{name}` is no limit against the base; move it below `budget:` of the model, or directly below the recipe"
        )
    return ""
