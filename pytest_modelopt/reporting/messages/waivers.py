"""Sentences on waivers: what they accept, and whether they are needed."""

from __future__ import annotations

from pytest_modelopt.judging.waivers import WaiverState, WaiverUse
from pytest_modelopt.results.verdicts import Waiver


def format_waiver(waiver: Waiver) -> str:
    """'until 2027-01-31, owner @ada: oneDNN 3.12 is slower. (budgets.yaml:40)'."""
    owner = f", owner {waiver.owner}" if waiver.owner else ""
    reason = waiver.reason.removesuffix(".")
    return f"until {waiver.until}{owner}: {reason}. ({waiver.file}:{waiver.line})"


def format_waiver_use(use: WaiverUse) -> str:
    """What to know about a waiver, and what to do."""
    about = f"The waiver of {use.limit.name} {use.limit.text} of {use.case} {format_waiver(use.waiver)}"
    ends: dict[WaiverState, str] = {
        "used": "It is used.",
        "unused": "The limit holds without it: remove it.",
        "exceeded": f"Its ceiling {use.waiver.ceiling_text} is broken.",
        "unknown": "Whether it is needed is not known: the limit was not judged.",
    }
    return f"{about} {ends[use.state]}"
