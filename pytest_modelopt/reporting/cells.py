"""Cells of tables: one figure, or a figure and what became of it, as text that is made once for all forms."""

from __future__ import annotations

import math

from pytest_modelopt.limits.derived import Derived, growth
from pytest_modelopt.limits.latency import interval_of, latencies_s, slowdown, speedup_of
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import (
    format_bytes,
    format_factor,
    format_number,
    format_percentage,
    format_points,
    format_time,
)
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.statistics.proportions import drop_bounds

NOT_MEASURED = "-"
PROCESS_METER = "*"
"""Marks a memory figure that is the peak of fresh processes and not of torch's allocator."""

_SHARE_DIGITS = 5


def memory_cell(case: Case) -> str:
    """Bytes by the meter of the comparison, and the share by which they differ from the other side's."""
    cell = bytes_cell(case.memory_bytes(case.reference), case.memory_bytes(case.variant))
    return f"{cell}{PROCESS_METER}" if case.foreign_runtimes and cell != NOT_MEASURED else cell


def size_cell(case: Case) -> str:
    """Saved bytes, and the share by which they differ from the other side's."""
    original, variant = case.reference, case.variant
    return bytes_cell(original.size_bytes if original else None, variant.size_bytes if variant else None)


def bytes_cell(original: int | None, variant: int | None) -> str:
    """'3 MiB (-25%)', '3 MiB (+4 B)' where the share is too small to show; alone where there is no other side."""
    if variant is None:
        return NOT_MEASURED
    grown = growth(original, variant)
    if original is None or grown is None:
        return format_bytes(variant)
    rounded = round(abs(float(grown)), _SHARE_DIGITS)
    sign = "" if not grown else "+" if grown > 0 else "-"
    share = format_percentage(rounded) if rounded or not sign else format_bytes(abs(variant - original))
    return f"{format_bytes(variant)} ({sign}{share})"


def latency_cell(timing: Timing) -> str:
    """'1.8 ms -> 880 us': one call of either side in this comparison, whose ratio is the speedup."""
    return " -> ".join(map(format_time, latencies_s(timing)))


def throughput(case: Case) -> str:
    """' (36364/s)': examples a second of the variant, where a call has several."""
    rate = Derived(case).examples_per_second
    return "" if rate is None else f" ({format_number(rate)}/s)"


def speedup_cell(timing: Timing, timed_limits: int) -> str:
    """'1.42x [1.38, 1.47]'; without the interval where there are too few pairs for one."""
    estimate = speedup_of(timing)
    ends = interval_of(estimate, timed_limits)
    told = ", ".join(format_factor(end).removesuffix("x") for end in ends if math.isfinite(end))
    return f"{format_factor(estimate.figure)} [{told}]" if math.isfinite(ends[1]) else format_factor(estimate.figure)


def slowdown_cell(timing: Timing, timed_limits: int) -> str:
    """'+3% [-1%, +8%]': how much longer a call takes, from the speedup and its interval."""
    estimate = speedup_of(timing)
    low, high = interval_of(estimate, timed_limits)
    told = _signed(slowdown(estimate.figure))
    return f"{told} [{_signed(slowdown(high))}, {_signed(slowdown(low))}]" if math.isfinite(high) else told


def _signed(share: float) -> str:
    rounded = round(share, _SHARE_DIGITS)
    return f"{'+' if rounded > 0 else ''}{format_percentage(rounded)}"


def score_cell(metric: str | None, score: float | None) -> str:
    """The score in the metric's unit."""
    if score is None:
        return NOT_MEASURED
    return (format_percentage if in_unit_interval(metric) else format_number)(score, digits=4)


def drop_cell(case: Case, drop: float) -> str:
    """A difference of scores in the metric's unit."""
    return format_points(drop) if in_unit_interval(case.metric) else format_number(drop, digits=4)


def bounded_drop_cell(case: Case) -> str:
    """'0.28 pp (< 1.2)': with the one-sided 95% bound of the drop in the population, so that nobody takes 0 of 300
    examples for proof. A negative drop is a gain."""
    drop = case.drop
    return NOT_MEASURED if drop is None else f"{drop_cell(case, drop)}{_bound(case)}"


def _bound(case: Case) -> str:
    if case.agreement is not None:
        changed = case.agreement
        _, upper = drop_bounds(changed.right_to_wrong, changed.wrong_to_right, changed.examples)
    elif case.interval is not None:
        upper = case.interval.high
    else:
        return ""
    in_points = in_unit_interval(case.metric)
    return f" (< {format_number(100 * upper if in_points else upper, digits=2)})"


def flips_cell(case: Case) -> str:
    """'3 / 360': predictions that changed, of how many; of a model that generates, positions of its sequences."""
    if case.tokens is not None:
        return f"{case.tokens.flips} / {case.tokens.sequences * case.tokens.positions}"
    return f"{case.agreement.flips} / {case.agreement.examples}" if case.agreement else NOT_MEASURED
