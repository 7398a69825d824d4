"""Whether a case against a base has, on both sides, a figure that a limit bounds.

What head has no figure for was not measured, which is red: a limit must not be lost by breaking its meter. What only
the base has no figure for cannot be decided, and no change of head would mend it: inconclusive.
"""

from __future__ import annotations

from pytest_modelopt.limits.kind import LimitKind
from pytest_modelopt.limits.verdict_text import base_name, undecided
from pytest_modelopt.results.record import Case, Measurement
from pytest_modelopt.results.verdicts import Figure, Limit, Verdict


def not_comparable(kind: LimitKind, case: Case, limit: Limit) -> Verdict | None:
    """The verdict where one of the two sides has no figure, or not the same kind of figure; None where both have."""
    base = case.base
    if base is None:
        return kind.not_measured(case, limit, "the run compared nothing with a base")
    why = why_no_base(case)
    if why:
        return kind.not_measured(case, limit, why) if base.status == "unusable" else undecided(case, limit, why)
    needed = kind.figure_in(case)
    at_head = _why_missing(case, case.variant, needed)
    if at_head:
        return kind.not_measured(case, limit, at_head)
    at_base = _why_missing(case, case.original, needed)
    if at_base:
        return undecided(case, limit, f"{base_name(case)} has no {needed} figure to compare with: {_end(at_base)}")
    return _other_kind(case, limit, needed)


def why_no_base(case: Case) -> str:
    """Why none of the case's limits can be held against its base, in words; '' where there is one, or it is new."""
    status = "" if case.base is None else case.base.status
    told = {
        "unusable": f"the base {base_name(case)} could not be brought to run",
        "failed": f"there is nothing to compare with, since {base_name(case)} fails",
        "unpaired": "nothing was compared",
    }
    return f"{told[status]}: {_end(case.base.why)}" if case.base is not None and status in told else ""


def _why_missing(case: Case, side: Measurement | None, figure: Figure) -> str:
    """Why a side has no such figure, in words; empty where it has one."""
    if side is None:
        return "it was not measured at all"
    is_there = {
        "memory": bool(case.memory_peaks_bytes(side)),
        "process_memory": bool(case.memory_peaks_bytes(side)),
        "size": side.size_bytes is not None,
        "score": side.score is not None,
        "timing": case.timing is not None and bool(case.timing.pairs),
    }[figure]
    if is_there:
        return ""
    if figure == "timing" and side is case.variant and figure not in side.unmeasured and case.original is not None:
        # Pairs belong to both sides: they are missing for the reason that either of them states.
        return "" if figure in case.original.unmeasured else "the run produced no timing figure"
    return side.unmeasured.get(figure) or f"the run produced no {figure} figure"


def _other_kind(case: Case, limit: Limit, figure: Figure) -> Verdict | None:
    """Where both sides have the figure, but of different things."""
    assert case.original is not None
    assert case.variant is not None
    sides = (case.original, case.variant)
    meters = [side.process_memory.meter for side in sides if side.process_memory is not None]
    if figure == "process_memory" and len(set(meters)) > 1:
        return undecided(
            case, limit, f"it was measured by {meters[0]} at {base_name(case)} and by {meters[1]} here: two meters"
        )
    data = {side.data_fingerprint for side in sides if side.data_fingerprint is not None}
    if figure == "score" and len(data) > 1:
        return undecided(case, limit, f"{base_name(case)} was scored on other examples")
    return None


def _end(why: str) -> str:
    """The end of a sentence that is no sentence's end."""
    return why.rstrip().removesuffix(".") or "the record does not say why"
