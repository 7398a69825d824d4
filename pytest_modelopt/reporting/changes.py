"""Which figures of a case are others than those of the side that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.reporting.table import Block, Row
from pytest_modelopt.results.case import Case

FIGURES = ("memory", "size", "score", "answers", "latency")


def compared(case: Case) -> tuple[str, ...]:
    """Which of `FIGURES` the other side has, so that something can be said of them."""
    original = case.reference
    known = {
        "memory": bool(case.memory_peaks_bytes(original)),
        "size": original is not None and original.size_bytes is not None,
        "score": original is not None and original.score is not None,
        "answers": case.agreement is not None,
        "latency": Derived(case).timing is not None,
    }
    return tuple(name for name in FIGURES if known[name])


def changes(case: Case, timed_limits: int) -> tuple[str, ...]:
    """Which of the figures that the other side has have changed.

    Exact figures changed where they differ at all, memory of fresh processes where its runs lie apart, and latency
    where the interval excludes that nothing changed. A figure that the variant lost has changed.
    """
    differs = {
        "memory": _memory_changed(case),
        "size": _size_changed(case),
        "score": case.drop != 0.0,
        "answers": _answers_changed(case),
        "latency": _latency_changed(case, timed_limits),
    }
    return tuple(name for name in compared(case) if differs[name])


def is_open(block: Block, row: Row) -> bool:
    """Whether a row is something to look at: it failed, it is undecided, it is new, or its figures changed."""
    if row.case is None:
        return False
    if row.outcome in ("error", "fail", "inconclusive", "new"):
        return True
    return _is_compared(row.case) and bool(changes(row.case, block.timed_limits))


def with_originals(block: Block, rows: Sequence[Row]) -> list[Row]:
    """Some rows of a table below the originals that they are held against."""
    return [*(row for row in block.rows if row.is_original and not any(row is each for each in rows)), *rows]


def nothing_changed(found: Sequence[Block]) -> str:
    """That no figure of any case is another than at the base; '' where one is."""
    of_base = [(block, case) for block in found for case in block.cases if _is_compared(case)]
    if not of_base:
        return "Nothing was compared with the base."
    if any(changes(case, block.timed_limits) for block, case in of_base):
        return ""
    return _unchanged([case for _, case in of_base])


def _is_compared(case: Case) -> bool:
    return case.base is not None and case.base.status == "compared" and case.error is None


def _unchanged(cases: Sequence[Case]) -> str:
    known = [set(compared(case)) for case in cases]
    exact = [name for name in FIGURES if name != "latency" and any(name in names for names in known)]
    partly = [name for name in FIGURES if any(name in names for names in known) and not all(name in n for n in known)]
    same = " and ".join([", ".join(exact[:-1]), exact[-1]] if len(exact) > 1 else exact)
    told = f"Nothing changed: {len(cases)} variant{' was' if len(cases) == 1 else 's were'} compared with the base"
    if exact:
        told += f", and {'its' if len(cases) == 1 else 'their'} {same} {'is' if len(exact) == 1 else 'are'} the same"
    if any("latency" in names for names in known):
        told += "; no timing shows that one became slower or faster"
    return f"{told}. Not compared for every variant: {', '.join(partly)}." if partly else f"{told}."


def _memory_changed(case: Case) -> bool:
    before, after = case.memory_peaks_bytes(case.reference), case.memory_peaks_bytes(case.variant)
    return not after or (bool(before) and (max(before) < min(after) or max(after) < min(before)))


def _size_changed(case: Case) -> bool:
    before, after = (side.size_bytes if side else None for side in (case.reference, case.variant))
    return before != after


def _answers_changed(case: Case) -> bool:
    found = case.agreement
    return found is not None and (found.flips, found.right_to_wrong, found.wrong_to_right) != (0, 0, 0)


def _latency_changed(case: Case, timed_limits: int) -> bool:
    timing = Derived(case).timing
    if timing is None:
        return False
    low, high = interval_of(speedup_of(timing), timed_limits)
    return low > 1 or high < 1
