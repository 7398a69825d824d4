"""A broken limit in a few words, for places of one line: pytest's short summary, annotations, JUnit's messages."""

from __future__ import annotations

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting.messages.figures import format_figure, in_points
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_number, format_percentage, format_points
from pytest_modelopt.results.verdicts import Verdict


def format_short(case: MeasuredCase, verdict: Verdict) -> str:
    """'max_memory 1 MiB: 1.07 MiB (+6.8%)', 'max_flips 1%: not measured'. Of which case it is stands elsewhere."""
    limit = verdict.limit
    stated = f"{limit.name} {limit.text}"
    if verdict.measured is None or limit.name not in LIMITS:
        return f"{stated}: {_WORDS.get(verdict.outcome, verdict.outcome)}"
    if verdict.outcome == "inconclusive":
        return f"{stated}: {format_figure(case, limit, verdict.measured, kept=True)}, inconclusive"
    figure = format_figure(case, limit, verdict.measured, kept=(verdict.waived or verdict.outcome) != "fail")
    return f"{stated}: {figure} ({_distance(case, verdict, verdict.measured)})"


_WORDS = {"fail": "broken"}


def _distance(case: MeasuredCase, verdict: Verdict, measured: float) -> str:
    """'+6.8%' of the limit; of a share or a score what it is above or below it."""
    limit, unit = verdict.limit, LIMITS[verdict.limit.name].unit
    distance = measured - limit.value
    if unit in ("bytes", "time", "factor") and limit.value:
        text = format_percentage(distance / limit.value, digits=2)
    elif unit == "percentage" or in_points(case, limit):
        text = format_points(distance, digits=2)
    else:
        text = format_number(distance, digits=2)
    return text if distance < 0 else f"+{text}"
