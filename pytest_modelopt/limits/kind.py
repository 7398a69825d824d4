"""What every limit is: a name, a unit, a figure that it bounds, and how a measured case is held against it.

A verdict is data: `reporting/messages` has its sentence.

Figures stand to their limit exactly, so that a case that lies at its limit is never decided by rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, TypeAlias

from pytest_modelopt.limits import units
from pytest_modelopt.results import figures
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Figure, Limit, Parameter, Reason, Verdict
from pytest_modelopt.statistics.timing import Decision

Unit = Literal["bytes", "percentage", "points", "score", "factor", "time"]
Number: TypeAlias = "float | Fraction"
"""Shares of integers are fractions, figures that were measured as floats are floats."""

_DOMAINS: dict[Unit, tuple[float, float]] = {
    "bytes": (0.0, 2.0**53),
    "percentage": (0.0, 1.0),
    "points": (0.0, 1e12),
    "score": (-1e12, 1e12),
    "factor": (1e-9, 1e9),
    "time": (1e-12, 1e9),
}
_GROWTH = (0.0, 1e9)
_FORMATS: dict[Unit, Callable[..., str]] = {
    "bytes": figures.format_bytes,
    "percentage": figures.format_percentage,
    "factor": figures.format_factor,
    "time": figures.format_time,
}


@dataclass(frozen=True)
class LimitKind(ABC):
    """One kind of limit. A family of limits is a subclass."""

    name: str
    direction: Literal["max", "min"]
    unit: Unit
    figure: Figure
    """What it bounds: where that is missing, the measurement states why."""
    meaning: str
    against: Literal["original", "base"] = "original"
    """What the variant is compared with: its original, or itself at the base (`regression:`)."""

    is_timed: ClassVar[bool] = False
    """Whether statistics decide it; all others compare a figure that repeats."""
    is_about_answers: ClassVar[bool] = False
    is_absolute: ClassVar[bool] = False
    """Whether it needs no reference: `original:` may state it."""
    is_about_recipe: ClassVar[bool] = False
    """Whether it needs a recipe: `candidates:` may not state it."""

    @property
    def is_about_generation(self) -> bool:
        """Whether it needs a model that is called by `generate`."""
        return False

    # --- values ------------------------------------------------------------------------------------------------------

    @property
    def may_exceed_the_whole(self) -> bool:
        """Whether 150% is a value: what is compared with the base may grow by more than it was."""
        return self.unit == "percentage" and self.against == "base"

    @property
    def is_of_score(self) -> bool:
        """Whether its value is in the metric's unit."""
        return self.unit in ("points", "score")

    @property
    def domain(self) -> tuple[float, float]:
        """Between these a limit may lie."""
        return _GROWTH if self.may_exceed_the_whole else _DOMAINS[self.unit]

    def parse(self, raw: object, *, unit_interval: bool | None = None) -> float:
        """The value in its base unit.

        `unit_interval` says whether the metric lies in 0..1, None where that is not known.

        Raises:
            UnitError: if `raw` is not a value of this limit.
        """
        parsers: dict[Unit, Callable[[object], float]] = {
            "bytes": lambda value: float(units.parse_bytes(value)),
            "percentage": units.parse_growth if self.may_exceed_the_whole else units.parse_percentage,
            "points": lambda value: units.parse_points(value, unit_interval=unit_interval),
            "score": lambda value: units.parse_score(value, unit_interval=unit_interval),
            "factor": units.parse_factor,
            "time": units.parse_time,
        }
        return parsers[self.unit](raw)

    def format(self, value: float, *, unit_interval: bool | None = None, digits: int = 3) -> str:
        """A value, or the figure that is bounded, with its unit."""
        if self.unit == "points":
            return (figures.format_points if unit_interval else figures.format_number)(value, digits=digits)
        if self.unit == "score":
            return (figures.format_percentage if unit_interval else figures.format_number)(value, digits=digits)
        return _FORMATS[self.unit](value, digits=digits)

    def no_drop(self, metric: str | None) -> str:
        """Why a limit on a drop cannot be stated for a metric that gives the original no score; else empty."""
        if metric != "sqnr" or self.unit != "points":
            return ""
        return (
            "with `sqnr` nothing can drop: the original has no score of its own, since it differs from itself by "
            "nothing; state a floor, for example `min_accuracy: 30` (decibels)"
        )

    def never_measured(self, metric: MetricSpec, slices: str | None, inference: str) -> str:
        """Why a model with this metric gives no figure for the limit, whatever is measured; '' where it may."""
        return ""

    # --- a measured case ---------------------------------------------------------------------------------------------

    @abstractmethod
    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        """The verdict on the case. `timed_limits`: those of the run, which share the risk of a false FAIL."""

    @abstractmethod
    def with_room(
        self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float
    ) -> float | None:
        """The value that leaves `headroom`, a share, beyond `end`; None where that would be no room."""

    def why_useless(self, case: MeasuredCase) -> Reason | None:
        """Why the limit means nothing against this original; None where it does, or where nobody can tell."""
        return None

    def passes_among(self, case: MeasuredCase, limit: Limit, finalists: int) -> bool:
        """Whether a limit that this case keeps is kept for certain where it is one of so many finalists, each of which
        may be kept by luck. A figure that repeats is what it is, however many there are."""
        return True

    def note(self, case: MeasuredCase, limit: Limit) -> Reason | None:
        """What is worth saying of a limit that holds."""
        return None

    def bounds_from_above(self, case: MeasuredCase) -> bool:
        """Whether more is worse."""
        return self.direction == "max"

    def decide(self, case: MeasuredCase, limit: Limit, low: Number, high: Number) -> Decision:
        """Of everything from `low` to `high`: whether the limit allows all of it, or none. To lie at it keeps it."""
        if self.bounds_from_above(case):
            if compared(high, limit) <= 0:
                return "pass"
            return "fail" if compared(low, limit) > 0 else "inconclusive"
        if compared(low, limit) >= 0:
            return "pass"
        return "fail" if compared(high, limit) < 0 else "inconclusive"

    # --- verdicts ----------------------------------------------------------------------------------------------------

    def not_measured(self, limit: Limit, code: str = "missing", **parameters: Parameter) -> Verdict:
        """The verdict without a figure; `missing`: for the reason that its measurement states."""
        return Verdict(limit, "not measured", None, Reason(code, parameters))

    def figure_in(self, case: MeasuredCase) -> Figure:
        """The figure by which this case is judged: memory is that of the process where a runtime keeps the weights."""
        return "process_memory" if self.figure == "memory" and case.foreign_runtimes else self.figure


@dataclass(frozen=True)
class ExactKind(LimitKind):
    """A limit on one figure that repeats to the byte."""

    @abstractmethod
    def figure_of(self, case: MeasuredCase) -> Number | None:
        """None where it was not measured."""

    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        figure = self.figure_of(case)
        if figure is None:
            return self.not_measured(limit)
        return Verdict(limit, self.decide(case, limit, figure, figure), float(figure), Reason("measured"))


def undecided(limit: Limit, code: str, figure: Number | None = None, **parameters: Parameter) -> Verdict:
    """The verdict where nothing that was measured could decide."""
    measured = None if figure is None else float(figure)
    return Verdict(limit, "inconclusive", measured, Reason(code, parameters))


def ends(low: Number, high: Number) -> tuple[float | None, float | None]:
    """The two ends of a verdict's range: None where it is one figure, and for an end without bound."""
    if low == high:
        return None, None
    return (None if math.isinf(low) else float(low), None if math.isinf(high) else float(high))


def compared(figure: Number, limit: Limit) -> int:
    """Below, at or above the limit: -1, 0, 1.

    The author wrote a decimal number: to a fraction 0.6 means 6/10, not the binary float nearest to it.
    """
    bound = limit.value if isinstance(figure, float) else Fraction(repr(limit.value))
    return (figure > bound) - (figure < bound)


def share_left(end: float, headroom: float) -> float:
    """The reduction that leaves room on what remains: of a quarter of the bytes, a twentieth of that quarter."""
    return max(0.0, 1 - (1 - end) * (1 + headroom))
