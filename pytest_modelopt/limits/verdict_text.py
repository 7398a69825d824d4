"""Parts of the sentences of verdicts that several limits share."""

from __future__ import annotations

import math
from fractions import Fraction

from pytest_modelopt.results.figures import format_number, format_percentage
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.record import Case, Measurement
from pytest_modelopt.results.verdicts import Limit, Verdict


def sentence(case: Case, limit: Limit, text: str) -> str:
    """`text` goes on after the limit: 'holds: 3 MiB measured'."""
    return f"{_beginning(case, limit)}{text}. ({limit.file}:{limit.line})"


def _beginning(case: Case, limit: Limit) -> str:
    return f"{case.name}: {limit.name} {limit.text} "


def undecided(case: Case, limit: Limit, why: str, figure: float | Fraction | None = None) -> Verdict:
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


def told_scores(case: Case) -> str:
    """Of a case against a base: ' (96.2%, was 96.9%)'."""
    sides = [side.score if side is not None else None for side in (case.variant, case.original)]
    form = format_percentage if in_unit_interval(case.metric) else format_number
    told = [form(score, digits=4) for score in sides if score is not None]
    return f" ({', was '.join(dict.fromkeys(told))})" if len(told) == 2 else ""


def told_meter(side: Measurement | None) -> str:
    """' by memray in 3 fresh processes'; empty for torch's allocator."""
    process = side.process_memory if side is not None else None
    if process is None:
        return ""
    runs = len(process.peaks_bytes)
    return f" by {process.meter} in {runs} fresh process{'' if runs == 1 else 'es'}"


def in_points(case: Case, limit: Limit | None) -> bool:
    """Whether a drop or a score is told in points or per cent: as its limit is; without a unit, as the metric is."""
    has_unit = limit is not None and limit.text.endswith(("pp", "%"))
    return has_unit or in_unit_interval(case.metric) is True


def told_needed(examples: int | None, of: str = "") -> str:
    """'about 1,300 examples would be needed', rounded up to two digits; `of` says of what."""
    if examples is None:
        return (
            "what was measured is the limit itself, which no number of examples decides; state another limit, or "
            "`inference: set`"
        )
    unit = 10 ** max(0, len(str(examples)) - 2)
    return f"about {math.ceil(examples / unit) * unit:,} examples{of} would be needed"
