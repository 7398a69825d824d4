"""One limit, with the figure and its interval on a scale."""

from __future__ import annotations

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting.page.charts import Chart, Shape, box, dot, line, scale
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Verdict

_WIDTH, _HEIGHT, _MIDDLE = 240, 28, 14.0


def limit_chart(case: Case, verdict: Verdict, label: str) -> Chart | None:
    """None where nothing was measured, or the figures lie too far apart; `label` says in words what is drawn."""
    limit = verdict.limit
    if verdict.measured is None or limit.name not in LIMITS:
        return None
    ends = [end for end in (verdict.low, verdict.high) if end is not None]
    x = scale((limit.value, verdict.measured, *ends), 6, _WIDTH - 6, room=0.3)
    if x is None:
        return None
    bound, measured = x.at(limit.value), x.at(verdict.measured)
    from_above = LIMITS[limit.name].bounds_from_above(case)
    allowed = (x.start, bound - x.start) if from_above else (bound, x.end - bound)
    shapes = [
        Shape("allowed", box(allowed[0], _MIDDLE - 8, allowed[1], 16)),
        Shape("axis", line(x.start, _MIDDLE, x.end, _MIDDLE)),
        Shape("bound", line(bound, _MIDDLE - 11, bound, _MIDDLE + 11), f"limit {limit.text}"),
    ]
    if ends:
        low = x.start if verdict.low is None else x.at(verdict.low)
        high = x.end if verdict.high is None else x.at(verdict.high)
        shapes.append(Shape("interval", line(low, _MIDDLE, high, _MIDDLE)))
    kind = "broken" if verdict.outcome in ("fail", "not measured") else "unsure" if verdict.outcome != "pass" else ""
    shapes.append(Shape(f"dot {kind}".strip(), dot(measured, _MIDDLE)))
    return Chart(label, _WIDTH, _HEIGHT, tuple(shapes))
