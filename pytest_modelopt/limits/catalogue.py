"""The catalogue of limits: what each one bounds, in which unit it is written, and how budgets are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.limits import units
from pytest_modelopt.limits.spelling import did_you_mean, nearest, shown
from pytest_modelopt.results import figures
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.metric import BUILT_IN, is_share
from pytest_modelopt.results.verdicts import Figure, Level, Limit

Unit = Literal["bytes", "percentage", "points", "score", "factor", "time"]


@dataclass(frozen=True)
class LimitKind:
    """One kind of limit. `exact` ones compare a repeatable figure, `timed` ones need statistics."""

    name: str
    kind: Literal["exact", "timed"]
    direction: Literal["max", "min"]
    unit: Unit
    meaning: str
    against: Literal["original", "base"] = "original"
    """What the variant is compared with: its original, or itself at the base (`regression:`)."""

    @property
    def may_exceed_the_whole(self) -> bool:
        """Whether 150% is a value: what is compared with the base may grow by more than it was."""
        return self.unit == "percentage" and self.against == "base"


LIMITS: dict[str, LimitKind] = {
    kind.name: kind
    for kind in (
        LimitKind(
            "max_memory",
            "exact",
            "max",
            "bytes",
            "The most memory that one call of the variant may take at its peak, weights included.",
        ),
        LimitKind(
            "min_memory_reduction",
            "exact",
            "min",
            "percentage",
            "The share of the original's peak memory that the variant must save.",
        ),
        LimitKind(
            "max_process_memory",
            "exact",
            "max",
            "bytes",
            "The most memory that a fresh process may take at its peak to load the saved variant and call it once.",
        ),
        LimitKind("max_size", "exact", "max", "bytes", "The most bytes that the saved variant may have."),
        LimitKind(
            "min_size_reduction",
            "exact",
            "min",
            "percentage",
            "The share of the saved original's bytes that the variant must save.",
        ),
        LimitKind(
            "min_speedup", "timed", "min", "factor", "How many times as fast as the original the variant must be."
        ),
        LimitKind(
            "max_latency",
            "timed",
            "max",
            "time",
            "The longest that one call of the variant may take on the machine that runs the tests.",
        ),
        LimitKind(
            "max_accuracy_drop",
            "exact",
            "max",
            "points",
            "The most by which the variant's score may be worse than the original's on the same examples.",
        ),
        LimitKind(
            "min_accuracy",
            "exact",
            "min",
            "score",
            "The score that the variant must reach on its own, whatever the original's is.",
        ),
        LimitKind(
            "max_slice_drop",
            "exact",
            "max",
            "points",
            "The most by which the score may be worse on any one class, or on any slice that the project names.",
        ),
        LimitKind(
            "max_flips",
            "exact",
            "max",
            "percentage",
            "The largest share of the examples whose prediction may differ from the original's.",
        ),
        LimitKind(
            "min_coverage",
            "exact",
            "min",
            "percentage",
            "The share of the weight bytes that the recipe must really change.",
        ),
        LimitKind(
            "max_memory_growth",
            "exact",
            "max",
            "percentage",
            "The share by which the peak memory of one call may be larger than at the base.",
            "base",
        ),
        LimitKind(
            "max_size_growth",
            "exact",
            "max",
            "percentage",
            "The share by which the saved bytes may be more than at the base.",
            "base",
        ),
        LimitKind(
            "max_accuracy_loss",
            "exact",
            "max",
            "points",
            "The most by which the score may be worse than at the base on the same examples.",
            "base",
        ),
        LimitKind(
            "max_slowdown",
            "timed",
            "max",
            "percentage",
            "The share by which one call may take longer than at the base, both measured in turns.",
            "base",
        ),
    )
}
"""Every limit by name, in the order in which budgets and tables list them."""

BUDGET_LIMITS = {name: kind for name, kind in LIMITS.items() if kind.against == "original"}
REGRESSION_LIMITS = {name: kind for name, kind in LIMITS.items() if kind.against == "base"}

FIGURES: dict[str, Figure] = {
    "max_memory": "memory",
    "min_memory_reduction": "memory",
    "max_process_memory": "process_memory",
    "max_size": "size",
    "min_size_reduction": "size",
    "min_speedup": "timing",
    "max_latency": "timing",
    "max_accuracy_drop": "score",
    "min_accuracy": "score",
    "max_slice_drop": "slices",
    "max_flips": "predictions",
    "min_coverage": "coverage",
    "max_memory_growth": "memory",
    "max_size_growth": "size",
    "max_accuracy_loss": "score",
    "max_slowdown": "timing",
}
"""Which figure of a measurement a limit bounds: where it is missing, its stated reason is the verdict's reason."""

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
        raise units.UnitError(unknown_limit(name))
    growth = LIMITS[name].may_exceed_the_whole
    parsers: dict[Unit, Callable[[object], float]] = {
        "bytes": lambda value: float(units.parse_bytes(value)),
        "percentage": units.parse_growth if growth else units.parse_percentage,
        "points": lambda value: units.parse_points(value, unit_interval=unit_interval),
        "score": lambda value: units.parse_score(value, unit_interval=unit_interval),
        "factor": units.parse_factor,
        "time": units.parse_time,
    }
    return parsers[LIMITS[name].unit](raw)


def parse_level(raw: object) -> Level:
    """`error` or `warn`.

    Raises:
        UnitError: if it is anything else.
    """
    for level in LEVELS:
        if raw == level:
            return level
    guess = did_you_mean(raw, LEVELS) if isinstance(raw, str) else f"; the valid ones are {', '.join(LEVELS)}"
    raise units.UnitError(f"there is no level {shown(raw)}{guess}")


def parse_inference(raw: object) -> Inference:
    """`set` or `population`.

    Raises:
        UnitError: if it is anything else.
    """
    for inference in INFERENCES:
        if raw == inference:
            return inference
    near = nearest(raw, INFERENCES) if isinstance(raw, str) else None
    raise units.UnitError(
        f"{shown(raw)} does not say what limits on accuracy are about; write `set` for these very examples, or "
        f"`population` for all that they were drawn from{f'; did you mean {near!r}?' if near else ''}"
    )


def format_value(name: str, value: float, *, unit_interval: bool | None = None, digits: int = 3) -> str:
    """A value of limit `name`, or the figure that it bounds, in words for tables and sentences."""
    unit = LIMITS[name].unit
    if unit == "points":
        return (figures.format_points if unit_interval else figures.format_number)(value, digits=digits)
    if unit == "score":
        return (figures.format_percentage if unit_interval else figures.format_number)(value, digits=digits)
    formats: dict[Unit, Callable[..., str]] = {
        "bytes": figures.format_bytes,
        "percentage": figures.format_percentage,
        "factor": figures.format_factor,
        "time": figures.format_time,
    }
    return formats[unit](value, digits=digits)


def metric_in_unit_interval(metric: str | None) -> bool | None:
    """Whether the metric's scores lie in 0..1: True for shares of the examples, None for metrics that are not ours."""
    if metric in BUILT_IN and not is_share(metric):
        return False
    return True if is_share(metric) else None


def no_drop(limit: str, metric: str | None) -> str:
    """Why a limit on a drop cannot be stated for a metric that gives the original no score; else empty."""
    if metric != "sqnr" or limit not in ("max_accuracy_drop", "max_slice_drop", "max_accuracy_loss"):
        return ""
    return (
        "with `sqnr` nothing can drop: the original has no score of its own, since it differs from itself by nothing; "
        "state a floor, for example `min_accuracy: 30` (decibels)"
    )


def misfit(limit: Limit, metric: str | None) -> str | None:
    """Why a limit that was read before its metric was known does not fit that metric, as a sentence, or None."""
    if LIMITS[limit.name].unit not in ("points", "score"):
        return None
    if no_drop(limit.name, metric):
        return f"{limit.name}: {no_drop(limit.name, metric)}"
    try:
        parse_value(limit.name, limit.text, unit_interval=metric_in_unit_interval(metric))
    except units.UnitError as error:
        return f"{limit.name}: {error}"
    return None


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
