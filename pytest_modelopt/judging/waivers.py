"""What a waiver makes of a verdict, and which waivers of a record are needed.

A waiver accepts a figure beyond its limit, up to its ceiling; it never accepts the lack of a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Limit, Outcome, Verdict, Waiver, ceiling_of

WaiverState = Literal["exceeded", "used", "unknown", "unused"]
_STATES: tuple[WaiverState, ...] = ("exceeded", "used", "unknown", "unused")
"""Where a case was measured on several machines, the first of these that any of them found."""
_OF_OUTCOME: dict[Outcome, WaiverState] = {
    "waived": "used",
    "pass": "unused",
    "fail": "exceeded",
    "inconclusive": "unknown",
    "not measured": "unknown",
}


def waive(judged: Verdict, judge_again: Callable[[Limit], Verdict]) -> Verdict:
    """The verdict with the waiver of its limit taken into account; `judge_again` judges another limit of the case."""
    if judged.limit.waiver is None or judged.outcome not in ("fail", "inconclusive"):
        return judged
    ceiling = ceiling_of(judged.limit)
    if ceiling is not None and judge_again(ceiling).outcome == "fail":
        return replace(judged, is_beyond_ceiling=True)
    return replace(judged, outcome="waived", waived=judged.outcome)


# --- which ones are needed -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WaiverUse:
    """One waiver of a record, and what it came to."""

    case: str
    """'digits-vit/int8-dynamic'."""
    limit: Limit
    waiver: Waiver
    state: WaiverState
    """used: the limit is broken, or not decided, and accepted. unused: it holds without the waiver, which can go.
    exceeded: the ceiling is broken, too. unknown: the limit was not judged, or not measured."""


def waiver_uses(record: Record) -> tuple[WaiverUse, ...]:
    """Every waiver of the record's limits with what it came to, in the order of the cases."""
    found: dict[tuple[str, str], WaiverUse] = {}
    for case in record.cases:
        outcomes = {verdict.limit.name: verdict.outcome for verdict in case.verdicts}
        for limit in case.limits:
            if limit.waiver is None:
                continue
            state = _OF_OUTCOME[outcomes[limit.name]] if limit.name in outcomes else "unknown"
            use = WaiverUse(case.name, limit, limit.waiver, state)
            known = found.setdefault((case.name, limit.name), use)
            if _STATES.index(state) < _STATES.index(known.state):
                found[case.name, limit.name] = use
    return tuple(found.values())
