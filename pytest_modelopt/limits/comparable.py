"""Whether a case against a base has, on both sides, a figure that a limit bounds.

What head has no figure for was not measured, which is red: a limit must not be lost by breaking its meter. What only
the base has no figure for cannot be decided, and no change of head would mend it: inconclusive.
"""

from __future__ import annotations

from pytest_modelopt.limits.kind import LimitKind, undecided
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.verdicts import Figure, Limit, Verdict


def not_comparable(kind: LimitKind, case: MeasuredCase, limit: Limit) -> Verdict | None:
    """The verdict where one of the two sides has no figure, or not the same kind of figure; None where both have."""
    if case.base is None:
        return kind.not_measured(limit, "nothing-against-base")
    if lacks_base(case):
        return kind.not_measured(limit, "no-base") if case.base.status == "unusable" else undecided(limit, "no-base")
    needed = kind.figure_in(case)
    if _lacks(case, case.variant, needed):
        return kind.not_measured(limit, "missing-at-head")
    if _lacks(case, case.reference, needed):
        return undecided(limit, "missing-at-base")
    return _other_kind(case, limit, needed)


def lacks_base(case: MeasuredCase) -> bool:
    """Whether none of the case's limits can be held against its base, which is not new."""
    return case.base is not None and case.base.status in ("unusable", "failed", "unpaired")


def _lacks(case: MeasuredCase, side: Measurement | None, figure: Figure) -> bool:
    if side is None:
        return True
    has = {
        "memory": bool(case.memory_peaks_bytes(side)),
        "process_memory": bool(case.memory_peaks_bytes(side)),
        "size": side.size_bytes is not None,
        "score": side.score is not None,
        "timing": case.timing is not None and bool(case.timing.pairs),
    }
    if has[figure]:
        return False
    # Pairs belong to both sides: they are missing for the reason that either of them states.
    is_said_of_base = case.reference is not None and figure in case.reference.unmeasured
    return not (figure == "timing" and side is case.variant and figure not in side.unmeasured and is_said_of_base)


def _other_kind(case: MeasuredCase, limit: Limit, figure: Figure) -> Verdict | None:
    """Where both sides have the figure, but of different things."""
    assert case.reference is not None
    assert case.variant is not None
    sides = (case.reference, case.variant)
    meters = [side.process_memory.meter for side in sides if side.process_memory is not None]
    if figure == "process_memory" and len(set(meters)) > 1:
        return undecided(limit, "two-meters")
    data = {side.data_fingerprint for side in sides if side.data_fingerprint is not None}
    if figure == "score" and len(data) > 1:
        return undecided(limit, "other-examples")
    return None
