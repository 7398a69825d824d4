"""Which figures of a case are others than those of the side that it is compared with."""

from __future__ import annotations

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.latency import interval_of, speedup_of
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
