"""Figures beside their limit, and the phrases that several sentences share."""

from __future__ import annotations

import math

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting.names import sides
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_number, format_percentage, format_points
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.verdicts import Limit, Verdict


def format_figure(case: MeasuredCase, limit: Limit, figure: float, *, kept: bool) -> str:
    """The figure with as many digits as it takes that a broken limit does not look like a kept one."""
    kind, unit_interval = LIMITS[limit.name], in_points(case, limit)
    text = ""
    for digits in range(3, 13):
        text = kind.format(figure, unit_interval=unit_interval, digits=digits)
        if kept or text != kind.format(limit.value, unit_interval=unit_interval, digits=digits):
            break
    return text


def beyond_limit(case: MeasuredCase, limit: Limit, figure: float) -> str:
    """', 25% more than the limit': how far beyond it the figure lies."""
    unit, distance = LIMITS[limit.name].unit, abs(figure - limit.value)
    if unit in ("bytes", "time", "factor") and limit.value:
        side = "more" if figure > limit.value else "less"
        return f", {format_percentage(distance / limit.value)} {side} than the limit"
    if unit == "percentage":
        side = "above" if figure > limit.value else "below"
        points = format_number(100 * distance)
        return f", {points} percentage point{'' if points == '1' else 's'} {side} the limit"
    return f", {(format_points if in_points(case, limit) else format_number)(distance)} beyond the limit"


def in_points(case: MeasuredCase, limit: Limit | None) -> bool:
    """Whether a drop or a score has points or per cent: as its limit has; without a unit, as the metric has."""
    has_unit = limit is not None and limit.text.endswith(("pp", "%"))
    return has_unit or in_unit_interval(case.metric) is True


def format_drop(case: MeasuredCase, drop: float, limit: Limit | None = None) -> str:
    """In points for a metric from 0 to 1, and where the limit is stated in points."""
    return format_points(drop) if in_points(case, limit) else format_number(drop, digits=4)


def format_score(case: MeasuredCase, score: float) -> str:
    """'96.2%' of a metric from 0 to 1, else a number."""
    return (format_percentage if in_unit_interval(case.metric) else format_number)(score, digits=4)


def base_name(case: MeasuredCase) -> str:
    """What head is compared with: '1a2b3c4d5e6f', 'saved.json'."""
    return case.base.name if case.base is not None else "the base"


def without_end(text: str) -> str:
    """A reason that another sentence goes on with."""
    return text.rstrip().removesuffix(".") or "the record does not say why"


def meter(case: MeasuredCase) -> str:
    """' by memray in 3 fresh processes'."""
    process = case.variant.process_memory if case.variant is not None else None
    if process is None:
        return ""
    runs = len(process.peaks_bytes)
    return f" by {process.meter} in {runs} fresh process{'' if runs == 1 else 'es'}"


def needed_examples(examples: object, of: str = "") -> str:
    """'about 1,300 examples would be needed', rounded up to two digits; `of` says of what."""
    if not isinstance(examples, int):
        return (
            "what was measured is the limit itself, which no number of examples decides; state another limit, or "
            "`inference: set`"
        )
    unit = 10 ** max(0, len(str(examples)) - 2)
    return f"about {math.ceil(examples / unit) * unit:,} examples{of} would be needed"


def answer_figure(case: MeasuredCase, limit: Limit, figure: float, *, kept: bool) -> str:
    """'0.7 pp measured', or against a base '0.7 pp worse than at 1a2b3c4d5e6f (96.2%, was 96.9%)'."""
    if case.base is None:
        return f"{format_figure(case, limit, figure, kept=kept)} measured"
    scores = [side.score for side in (case.variant, case.reference) if side is not None and side.score is not None]
    texts = dict.fromkeys(format_score(case, score) for score in scores)
    both = f" ({', was '.join(texts)})" if len(scores) == 2 else ""
    if figure == 0:
        return f"neither better nor worse than at {base_name(case)}{both}"
    amount = format_figure(case, limit, abs(figure), kept=kept or figure < 0)
    return f"{amount} {'worse' if figure > 0 else 'better'} than at {base_name(case)}{both}"


def other_passes(case: MeasuredCase, verdict: Verdict) -> str:
    """', and 0.5 pp to 1.2 pp in other passes'; empty where all passes agree."""
    found = verdict.reason.parameters
    if "passes_low" not in found:
        return ""
    low, high = found["passes_low"], found["passes_high"]
    if not isinstance(low, float) or not isinstance(high, float):
        return ", and unknown in other passes"
    ends = (format_figure(case, verdict.limit, end, kept=False) for end in (low, high))
    return f", and {' to '.join(ends)} in other passes"


def format_repeats(case: MeasuredCase) -> str:
    """Which side answers differently each time, and how much; '' where both repeat themselves."""
    return "; ".join(
        f"the {name} answers differently each time: {format_repeat(case, side)}"
        for name, side in zip(sides(case), (case.reference, case.variant), strict=True)
        if side is not None and side.repeat is not None
    )


def format_repeat(case: MeasuredCase, side: Measurement) -> str:
    """'12 of 450 predictions changed between two passes over the same examples', of a side that does not repeat."""
    assert side.repeat is not None
    passes = "two passes over the same examples"
    if side.repeat.flips is not None:
        return f"{side.repeat.flips:,} of {side.repeat.examples:,} predictions changed between {passes}"
    if side.score is None or side.repeat.score is None:
        return f"its answers changed between {passes}"
    scores = " and ".join(format_score(case, score) for score in (side.score, side.repeat.score))
    return f"its score was {scores} in {passes}"
