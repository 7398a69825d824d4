"""Cells of tables: one figure, or a figure and what became of it, as text that is made once for all forms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_modelopt.limits.derived import Derived, growth
from pytest_modelopt.limits.front import Found
from pytest_modelopt.limits.latency import interval_of, latencies_s, slowdown, speedup_of
from pytest_modelopt.reporting.columns import MISSING, Shown, alike, figure_column
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_bytes, format_number, format_percentage, format_points
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.statistics.proportions import drop_bounds

NOT_MEASURED = MISSING
PROCESS_METER = "*"
"""Marks a memory figure that is the peak of fresh processes and not of torch's allocator."""

_SHARE_DIGITS = 5


def memory_cells(cases: Sequence[Case]) -> list[str]:
    """Bytes by the meter of each comparison, and the share by which they differ from the other side's."""
    cells = bytes_cells([(case.memory_bytes(case.reference), case.memory_bytes(case.variant)) for case in cases])
    return [
        f"{cell}{PROCESS_METER}" if case.foreign_runtimes and cell != NOT_MEASURED else cell
        for case, cell in zip(cases, cells, strict=True)
    ]


def size_cells(cases: Sequence[Case]) -> list[str]:
    """Saved bytes, and the share by which they differ from the other side's."""
    sizes = [[side.size_bytes if side else None for side in (case.reference, case.variant)] for case in cases]
    return bytes_cells([(before, after) for before, after in sizes])


def bytes_cells(sides: Sequence[tuple[int | None, int | None]]) -> list[str]:
    """Of (original, variant): '3 MiB (-25%)', '3 MiB (+4 B)' where the share is too small to show; alone where there
    is no other side."""
    texts = alike([variant for _, variant in sides], "bytes")
    return [f"{text}{_changed(*of)}" for text, of in zip(texts, sides, strict=True)]


def _changed(original: int | None, variant: int | None) -> str:
    grown = growth(original, variant)
    if original is None or variant is None or grown is None:
        return ""
    rounded = round(abs(float(grown)), _SHARE_DIGITS)
    sign = "" if not grown else "+" if grown > 0 else "-"
    share = format_percentage(rounded) if rounded or not sign else format_bytes(abs(variant - original))
    return f" ({sign}{share})"


def latency_cells(timings: Sequence[Timing | None]) -> list[str]:
    """'1.80 -> 0.88 ms': one call of either side in each comparison, whose ratio is the speedup."""
    sides = [(None, None) if timing is None else latencies_s(timing) for timing in timings]
    shown = [Shown(after, before) for before, after in sides]
    return list(figure_column("", "time", shown, is_timed=True).cells)


def throughput(case: Case) -> str:
    """' (36364/s)': examples a second of the variant, where a call has several."""
    rate = Derived(case).examples_per_second
    return "" if rate is None else f" ({format_number(rate)}/s)"


def speedup_cells(timings: Sequence[Timing | None], timed_limits: int) -> list[str]:
    """'1.42x [1.38, 1.47]'; without the interval where there are too few pairs for one."""
    estimates = [None if timing is None else speedup_of(timing) for timing in timings]
    return interval_cells(
        [None if each is None else Found(each.figure, *interval_of(each, timed_limits)) for each in estimates]
    )


def interval_cells(found: Sequence[Found | None]) -> list[str]:
    """Factors, each with its interval where both ends are known."""
    known = [each for each in found if each is not None]
    ends = [end if math.isfinite(end) else None for each in known for end in (each.at, each.low, each.high)]
    texts = iter(alike(ends, "factor"))
    cells = (_in_brackets(next(texts), next(texts), next(texts)) for _ in known)
    return [NOT_MEASURED if each is None else next(cells) for each in found]


def _in_brackets(figure: str, low: str, high: str) -> str:
    if NOT_MEASURED in (low, high):
        return figure
    return f"{figure} [{low.removesuffix('x')}, {high.removesuffix('x')}]"


def slowdown_cells(timings: Sequence[Timing | None], timed_limits: int) -> list[str]:
    """'+3.0% [-1.2%, +8.0%]': how much longer a call takes, from the speedup and its interval."""
    figures: list[float | None] = []
    for timing in timings:
        speedup = None if timing is None else speedup_of(timing)
        low, high = (math.inf, math.inf) if speedup is None else interval_of(speedup, timed_limits)
        known = speedup is not None and math.isfinite(high)
        figures.append(None if speedup is None else slowdown(speedup.figure))
        figures += [slowdown(high), slowdown(low)] if known else [None, None]
    signs = ["+" if each is not None and each > 0 else "" for each in figures]
    texts = [f"{sign}{text}" for sign, text in zip(signs, alike(figures, "percentage"), strict=True)]
    return [_in_brackets(*texts[place : place + 3]) for place in range(0, len(texts), 3)]


def score_cell(metric: str | None, score: float | None) -> str:
    """The score in the metric's unit."""
    if score is None:
        return NOT_MEASURED
    return (format_percentage if in_unit_interval(metric) else format_number)(score, digits=4)


def drop_cell(case: Case, drop: float) -> str:
    """A difference of scores in the metric's unit."""
    return format_points(drop) if in_unit_interval(case.metric) else format_number(drop, digits=4)


def drop_cells(cases: Sequence[Case]) -> list[str]:
    """Drops of one model in its metric's unit."""
    in_points = any(in_unit_interval(case.metric) for case in cases)
    return alike([case.drop for case in cases], "points", in_points=in_points)


def bounded_drop_cells(cases: Sequence[Case]) -> list[str]:
    """'0.28 pp (< 1.2)': with the one-sided 95% bound of the drop in the population, so that nobody takes 0 of 300
    examples for proof. A negative drop is a gain."""
    drops = zip(drop_cells(cases), cases, strict=True)
    return [NOT_MEASURED if case.drop is None else f"{text}{_bound(case)}" for text, case in drops]


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
