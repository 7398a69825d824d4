"""The sentences of verdicts: figures beside their limit, by how much one is broken, and why nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pytest_modelopt.budgets.deciding import Number
from pytest_modelopt.budgets.limits import FIGURES, LIMITS, format_value, metric_in_unit_interval
from pytest_modelopt.figures import format_number, format_percentage, format_points
from pytest_modelopt.record.model import Case
from pytest_modelopt.record.verdicts import Limit, Verdict
from pytest_modelopt.statistics.timing import Decision

_OPENINGS: Mapping[Decision, str] = {"pass": "holds", "fail": "is broken", "inconclusive": "is inconclusive"}


def verdict(case: Case, limit: Limit, decision: Decision, figure: Number, text: str) -> Verdict:
    """`text` says what was measured: it goes on after 'holds: ' or the like."""
    return Verdict(limit, decision, float(figure), sentence(case, limit, f"{_OPENINGS[decision]}: {text}"))


def sentence(case: Case, limit: Limit, text: str) -> str:
    """`text` goes on after the limit: 'holds: 3 MiB measured'."""
    return f"{case.name}: {limit.name} {limit.text} {text}. ({limit.file}:{limit.line})"


def not_measured(case: Case, limit: Limit, why: str = "") -> Verdict:
    """The verdict where a figure is missing, for the reason `why`, or else for the one that its measurement states."""
    text = f"was not measured, which counts as broken ({why or _why_missing(case, limit)})"
    return Verdict(limit, "not measured", None, sentence(case, limit, text))


def _why_missing(case: Case, limit: Limit) -> str:
    needed = FIGURES[limit.name]
    if needed == "memory" and case.foreign_runtimes:
        needed = "process_memory"
    by_reason: dict[str, list[str]] = {}
    for side in (case.original, case.variant):
        if side is not None and needed in side.unmeasured:
            by_reason.setdefault(side.unmeasured[needed], []).append(side.recipe or "original")
    told = [f"{' and '.join(sides)}: {reason}" for reason, sides in by_reason.items()]
    return "; ".join(told) or f"the run produced no {needed} figure"


def shown(case: Case, limit: Limit, figure: float, kept: bool) -> str:
    """The figure in words, with as many digits as it takes that a broken limit does not look like a kept one."""
    unit_interval = metric_in_unit_interval(case.metric)
    text = ""
    for digits in range(3, 13):
        text = format_value(limit.name, figure, unit_interval=unit_interval, digits=digits)
        if kept or text != format_value(limit.name, limit.value, unit_interval=unit_interval, digits=digits):
            break
    return text


def by_how_much(case: Case, limit: Limit, figure: float) -> str:
    """', 25% more than the limit': how far beyond it the figure lies."""
    distance = abs(figure - limit.value)
    unit = LIMITS[limit.name].unit
    if unit in ("bytes", "time", "factor") and limit.value:
        side = "more" if figure > limit.value else "less"
        return f", {format_percentage(distance / limit.value)} {side} than the limit"
    if unit == "percentage":
        side = "above" if figure > limit.value else "below"
        return f", {format_number(100 * distance)} percentage points {side} the limit"
    if metric_in_unit_interval(case.metric):
        return f", {format_points(distance)} beyond the limit"
    return f", {format_number(distance)} beyond the limit"


def told_needed(examples: int | None, of: str = "") -> str:
    """'about 1,300 examples would be needed', rounded up to two digits; `of` says of what."""
    if examples is None:
        return (
            "what was measured is the limit itself, which no number of examples decides; state another limit, or "
            "`inference: set`"
        )
    unit = 10 ** max(0, len(str(examples)) - 2)
    return f"about {math.ceil(examples / unit) * unit:,} examples{of} would be needed"
