"""What a waiver makes of a verdict, and which waivers of a record are needed.

A waiver accepts a figure beyond its limit, up to its ceiling; it never accepts the lack of a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pytest_modelopt.limits.verdict_text import reworded
from pytest_modelopt.results.record import Case, Record
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


def waive(case: Case, judged: Verdict, judge_again: Callable[[Limit], Verdict]) -> Verdict:
    """The verdict with the waiver of its limit taken into account; `judge_again` judges another limit of the case."""
    waiver = judged.limit.waiver
    if waiver is None or judged.outcome not in ("fail", "inconclusive"):
        return judged
    ceiling = ceiling_of(judged.limit)
    if ceiling is not None and judge_again(ceiling).outcome == "fail":
        told = (
            f"{judged.sentence} The ceiling {ceiling.text} of its waiver is broken, too: it is waived up to there "
            f"only, {told_waiver(waiver)}"
        )
        return replace(judged, sentence=told)
    up_to = f" up to {ceiling.text}" if ceiling is not None else ""
    return replace(
        judged, outcome="waived", sentence=reworded(case, judged, f"is waived{up_to} {told_waiver(waiver)} It ")
    )


def told_waiver(waiver: Waiver) -> str:
    """'until 2027-01-31, owner @ada: oneDNN 3.12 is slower. (budgets.yaml:40)'."""
    owner = f", owner {waiver.owner}" if waiver.owner else ""
    reason = waiver.reason.removesuffix(".")
    return f"until {waiver.until}{owner}: {reason}. ({waiver.file}:{waiver.line})"


# --- which ones are needed -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WaiverTold:
    """One waiver of a record, and what it came to."""

    case: str
    """'digits-vit/int8-dynamic'."""
    limit: Limit
    waiver: Waiver
    state: WaiverState
    """used: the limit is broken, or not decided, and accepted. unused: it holds without the waiver, which can go.
    exceeded: the ceiling is broken, too. unknown: the limit was not judged, or not measured."""

    @property
    def sentence(self) -> str:
        """What to know about it, and what to do."""
        about = f"The waiver of {self.limit.name} {self.limit.text} of {self.case} {told_waiver(self.waiver)}"
        ends: dict[WaiverState, str] = {
            "used": "It is used.",
            "unused": "The limit holds without it: remove it.",
            "exceeded": f"Its ceiling {self.waiver.ceiling_text} is broken.",
            "unknown": "Whether it is needed is not known: the limit was not judged.",
        }
        return f"{about} {ends[self.state]}"


def waivers_told(record: Record) -> tuple[WaiverTold, ...]:
    """Every waiver of the record's limits with what it came to, in the order of the cases."""
    found: dict[tuple[str, str], WaiverTold] = {}
    for case in record.cases:
        outcomes = {verdict.limit.name: verdict.outcome for verdict in case.verdicts}
        for limit in case.limits:
            if limit.waiver is None:
                continue
            state = _OF_OUTCOME[outcomes[limit.name]] if limit.name in outcomes else "unknown"
            told = WaiverTold(case.name, limit, limit.waiver, state)
            known = found.setdefault((case.name, limit.name), told)
            if _STATES.index(state) < _STATES.index(known.state):
                found[case.name, limit.name] = told
    return tuple(found.values())
