"""The sentences of verdicts: figures beside their limit, by how much one is broken, and why nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pytest_modelopt.judging.deciding import Number
from pytest_modelopt.limits.catalogue import FIGURES, LIMITS, format_value, metric_in_unit_interval
from pytest_modelopt.results.figures import format_number, format_percentage, format_points
from pytest_modelopt.results.record import Case, Measurement
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.timing import Decision

_OPENINGS: Mapping[Decision, str] = {"pass": "holds", "fail": "is broken", "inconclusive": "is inconclusive"}


def verdict(case: Case, limit: Limit, decision: Decision, figure: Number, text: str) -> Verdict:
    """`text` says what was measured: it goes on after 'holds: ' or the like."""
    return Verdict(limit, decision, float(figure), sentence(case, limit, f"{_OPENINGS[decision]}: {text}"))


def sentence(case: Case, limit: Limit, text: str) -> str:
    """`text` goes on after the limit: 'holds: 3 MiB measured'."""
    return f"{_beginning(case, limit)}{text}. ({limit.file}:{limit.line})"


def _beginning(case: Case, limit: Limit) -> str:
    return f"{case.name}: {limit.name} {limit.text} "


def not_measured(case: Case, limit: Limit, why: str = "") -> Verdict:
    """The verdict where a figure is missing, for the reason `why`, or else for the one that its measurement states."""
    text = f"was not measured, which counts as broken ({why or _why_missing(case, limit)})"
    return Verdict(limit, "not measured", None, sentence(case, limit, text))


def undecided(case: Case, limit: Limit, why: str, figure: Number | None = None) -> Verdict:
    """The verdict where nothing that was measured could decide."""
    measured = None if figure is None else float(figure)
    return Verdict(limit, "inconclusive", measured, sentence(case, limit, f"is inconclusive: {why}"))


def reworded(case: Case, judged: Verdict, opening: str) -> str:
    """The sentence of a verdict with `opening` between the limit and what was found: 'is waived ... It is broken: '."""
    beginning = _beginning(case, judged.limit)
    return f"{beginning}{opening}{judged.sentence.removeprefix(beginning)}"


def base_name(case: Case) -> str:
    """What head is compared with: '1a2b3c4d5e6f', 'saved.json'."""
    return case.base.name if case.base is not None else "the base"


def side_names(case: Case) -> tuple[str, str]:
    """What sentences call the two sides of the case."""
    return ("original", "variant") if case.base is None else ("base", "head")


def told_drop(case: Case, limit: Limit, drop: float, *, kept: bool) -> str:
    """'0.7 pp measured', or against a base '0.7 pp worse than at 1a2b3c4d5e6f (96.2%, was 96.9%)'."""
    if case.base is None:
        return f"{shown(case, limit, drop, kept)} measured"
    scores = _told_scores(case)
    if drop == 0:
        return f"neither better nor worse than at {base_name(case)}{scores}"
    amount = shown(case, limit, abs(drop), kept=kept or drop < 0)
    return f"{amount} {'worse' if drop > 0 else 'better'} than at {base_name(case)}{scores}"


def _told_scores(case: Case) -> str:
    """' (96.2%, was 96.9%)'."""
    sides = [side.score if side is not None else None for side in (case.variant, case.original)]
    form = format_percentage if metric_in_unit_interval(case.metric) else format_number
    told = [form(score, digits=4) for score in sides if score is not None]
    return f" ({', was '.join(dict.fromkeys(told))})" if len(told) == 2 else ""


def told_meter(side: Measurement | None) -> str:
    """' by memray in 3 fresh processes'; empty for torch's allocator."""
    process = side.process_memory if side is not None else None
    if process is None:
        return ""
    runs = len(process.peaks_bytes)
    return f" by {process.meter} in {runs} fresh process{'' if runs == 1 else 'es'}"


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


def in_points(case: Case, limit: Limit | None) -> bool:
    """Whether a drop or a score is told in points or per cent: as its limit is; without a unit, as the metric is."""
    has_unit = limit is not None and LIMITS[limit.name].unit in ("points", "score") and limit.text.endswith(("pp", "%"))
    return has_unit or metric_in_unit_interval(case.metric) is True


def shown(case: Case, limit: Limit, figure: float, kept: bool) -> str:
    """The figure in words, with as many digits as it takes that a broken limit does not look like a kept one."""
    unit_interval = in_points(case, limit)
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
    if in_points(case, limit):
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
