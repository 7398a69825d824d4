"""Figures of one family in one unit and with one number of digits, as the columns of all reports have them."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.reporting.columns import MISSING, Shown, figure_column
from pytest_modelopt.reporting.messages.figures import in_points
from pytest_modelopt.reporting.samples import FAMILIES, Family, Sample, alone
from pytest_modelopt.results.case import Case

_MOVED = {
    "memory_growth_ratio": "memory_bytes",
    "size_growth_ratio": "size_bytes",
    "slowdown_ratio": "latency_seconds",
    "loss": "score",
}
"""Families that say how far another one has moved since the base."""


def uniform(family: Family, of: Sequence[Sample], shown: Sequence[Shown | None]) -> list[str]:
    """A text for each of `shown`; '' for None. `of`: samples whose cases and limits say how scores are written."""
    if family.column is None:
        return ["" if each is None else _counted(family, of, each) for each in shown]
    limits = [None if each.verdict is None else each.verdict.limit for each in of]
    points = any(in_points(each.case, limit) for each, limit in zip(of, limits, strict=True))
    is_timed = family.column in ("time", "factor")
    return list(figure_column(family.title, family.column, shown, in_points=points, is_timed=is_timed).cells)


def _counted(family: Family, of: Sequence[Sample], shown: Shown) -> str:
    return MISSING if shown.after is None else family.form(of[0].case, shown.after)


def moved(sample: Sample) -> Family | None:
    """The family of which this one says how far it has moved; None where it says nothing of that kind."""
    return FAMILIES.get(_MOVED.get(sample.family.name, ""))


def both(case: Case, family: Family) -> tuple[float | None, float | None]:
    """What the two sides have of a figure that each has by itself, or of the latency."""
    if family.name == "latency_seconds":
        timing = Derived(case).timing
        return (None, None) if timing is None else latencies_s(timing)
    sides = [None if side is None else alone(case, side).get(family.name) for side in (case.reference, case.variant)]
    return sides[0], sides[1]
