"""The one table model, from which every form of the report is made: cells are strings, made once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from pytest_modelopt.budgets.judge import speedup_samples
from pytest_modelopt.budgets.limits import metric_in_unit_interval
from pytest_modelopt.figures import (
    format_bytes,
    format_factor,
    format_number,
    format_percentage,
    format_points,
    format_time,
)
from pytest_modelopt.record.model import Case, Coverage, Measurement, Record, Timing
from pytest_modelopt.record.outcome import CaseOutcome, case_outcome, is_red, warnings
from pytest_modelopt.report.plain import plain_line
from pytest_modelopt.statistics.proportions import drop_bounds
from pytest_modelopt.statistics.timing import ALPHA_PASS, alpha_fail, speedup_interval

HEADERS = ("recipe", "changed", "memory", "size", "latency", "speedup", "score", "drop", "flips", "verdict")
ALIGNMENTS = ("left", "right", "right", "right", "right", "right", "right", "right", "right", "left")
NOT_MEASURED = "-"
PROCESS_METER = "*"
"""Marks a memory figure that is the peak of fresh processes and not of torch's allocator."""

_SHORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,13}")
_Figure = TypeVar("_Figure")


@dataclass(frozen=True)
class Row:
    """One variant: its cells in the order of `HEADERS`. The original's has no case and no outcome."""

    recipe: str
    changed: str
    """Share of the weight bytes that the recipe changed, and of the multiply-adds that these do."""
    memory: str
    size: str
    latency: str
    speedup: str
    score: str
    drop: str
    flips: str
    verdict: str
    case_id: str | None = None
    outcome: CaseOutcome | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            self.recipe,
            self.changed,
            self.memory,
            self.size,
            self.latency,
            self.speedup,
            self.score,
            self.drop,
            self.flips,
            self.verdict,
        )


@dataclass(frozen=True)
class Block:
    """One model, scored with one metric on one batch size: the original's row, then a row for each recipe in order."""

    model: str
    metric: str | None
    rows: tuple[Row, ...]
    conditions: str
    """What the figures belong to: 'accuracy on 360 examples; latency of batch 1, 1 thread'."""
    is_red: bool

    @property
    def headers(self) -> tuple[str, ...]:
        """`HEADERS` as this block shows them: a score is called by its metric, where that has a short name."""
        metric = self.metric if self.metric is not None and _SHORT_NAME.fullmatch(self.metric) else "score"
        return tuple(metric if name == "score" else name for name in HEADERS)


def blocks(record: Record) -> list[Block]:
    """The tables of a record, one for each (model, metric, batch size, device), in the order of their first cases."""
    groups: dict[tuple[str, str | None, int, str], list[Case]] = {}
    for case in record.cases:
        groups.setdefault((case.model, case.metric, case.batch_size, case.device), []).append(case)
    return [_block(record, cases) for cases in groups.values()]


def _block(record: Record, cases: list[Case]) -> Block:
    first = cases[0]
    return Block(
        model=plain_line(first.model),
        metric=None if first.metric is None else plain_line(first.metric),
        rows=(_original_row(cases), *(_variant_row(record, case) for case in cases)),
        conditions=_conditions(cases),
        is_red=any(is_red(case, record.strict) for case in cases),
    )


def _conditions(cases: list[Case]) -> str:
    first = cases[0]
    examples = _latest(case.original.examples if case.original else None for case in cases)
    on = "" if examples is None else f" on {examples} example{'' if examples == 1 else 's'}"
    scored = f"{plain_line(first.metric)}{on}" if first.metric else "no metric"
    if any(case.agreement or case.interval for case in cases):
        judged = ", which limits are judged by" if any(case.inference == "population" for case in cases) else ""
        scored += f" (drop: with its 95% bound{judged})"
    threads = _latest(case.timing.threads if case.timing else None for case in cases)
    measured = f"memory{'' if threads is None else ' and latency'} of batch {first.batch_size}"
    if first.device != "cpu":
        measured += f" on {plain_line(first.device)}"
    elif threads is not None:
        measured += f", {threads} thread{'' if threads == 1 else 's'}"
    counted = any(case.coverage is not None and case.coverage.multiply_adds for case in cases)
    legend = "; changed: weight bytes / multiply-adds" if counted else ""
    return f"{scored}; {measured}{_meter(cases)}{legend}"


def _meter(cases: list[Case]) -> str:
    """What the mark at memory figures means, where there is one."""
    runtimes = list(dict.fromkeys(name for case in cases for name in case.foreign_runtimes))
    sides = [side for case in cases if case.foreign_runtimes for side in (case.original, case.variant)]
    meters = list(dict.fromkeys(side.process_memory.meter for side in sides if side and side.process_memory))
    if not meters:
        return ""
    return f" ({PROCESS_METER} memory of fresh processes by {' and '.join(meters)}, for {' and '.join(runtimes)})"


def _original_row(cases: list[Case]) -> Row:
    """The original is measured once and handed to all its cases; its latency is the median of all its comparisons."""

    def latest(figure: Callable[[Measurement], _Figure | None]) -> _Figure | None:
        return _latest(figure(case.original) if case.original else None for case in cases)

    latencies_s = [latency for case in cases if case.timing for latency in case.timing.original_latencies_s()]
    return Row(
        recipe="original",
        changed="",
        memory=_original_memory(cases),
        size=_or_dash(format_bytes, latest(lambda original: original.size_bytes)),
        latency=_or_dash(format_time, median(latencies_s) if latencies_s else None),
        speedup="",
        score=_score(cases[0].metric, latest(lambda original: original.score)),
        drop="",
        flips="",
        verdict="",
    )


def _variant_row(record: Record, case: Case) -> Row:
    outcome = case_outcome(case, record.strict)
    recipe, verdict = plain_line(case.recipe), _verdict(case, outcome)
    if outcome == "error":
        return Row(recipe, *(8 * (NOT_MEASURED,)), verdict, case.id, outcome)
    original, variant, timing, agreement = case.original, case.variant, _timed(case), case.agreement
    return Row(
        recipe=recipe,
        changed=_changed(case.coverage),
        memory=_memory(case),
        size=_bytes(original.size_bytes if original else None, variant.size_bytes if variant else None),
        latency=_or_dash(format_time, median(timing.variant_latencies_s()) if timing else None),
        speedup=_speedup(timing, record.timed_limits) if timing else NOT_MEASURED,
        score=_score(case.metric, variant.score if variant else None),
        drop=_drop(case),
        flips=f"{agreement.flips} / {agreement.examples}" if agreement else NOT_MEASURED,
        verdict=verdict,
        case_id=case.id,
        outcome=outcome,
    )


def _changed(coverage: Coverage | None) -> str:
    """Of the weight bytes, and of the multiply-adds where they were counted: `94% / 88%`."""
    if coverage is None:
        return NOT_MEASURED
    shares = [coverage.share, coverage.multiply_adds_share]
    return " / ".join(format_percentage(round(share, 4)) for share in shares if share is not None)


def _timed(case: Case) -> Timing | None:
    return case.timing if case.timing is not None and case.timing.pairs else None


def _latest(figures: Iterable[_Figure | None]) -> _Figure | None:
    return next((figure for figure in reversed(list(figures)) if figure is not None), None)


def _or_dash(form: Callable[[_Figure], str], figure: _Figure | None) -> str:
    return NOT_MEASURED if figure is None else form(figure)


def _memory(case: Case) -> str:
    cell = _bytes(case.memory_bytes(case.original), case.memory_bytes(case.variant))
    return f"{cell}{PROCESS_METER}" if case.foreign_runtimes and cell != NOT_MEASURED else cell


def _original_memory(cases: list[Case]) -> str:
    """By each meter that the comparisons below it use."""
    by_tensors = _latest(case.memory_bytes(case.original) for case in cases if not case.foreign_runtimes)
    by_process = _latest(case.memory_bytes(case.original) for case in cases if case.foreign_runtimes)
    told = [] if by_tensors is None else [format_bytes(by_tensors)]
    told += [] if by_process is None else [f"{format_bytes(by_process)}{PROCESS_METER}"]
    return ", ".join(told) or NOT_MEASURED


def _bytes(original: int | None, variant: int | None) -> str:
    if variant is None:
        return NOT_MEASURED
    if not original:
        return format_bytes(variant)
    growth = variant / original - 1
    sign = "" if variant == original else "+" if growth > 0 else "-"
    return f"{format_bytes(variant)} ({sign}{format_percentage(round(abs(growth), 5))})"


def _speedup(timing: Timing, timed_limits: int) -> str:
    speedups = speedup_samples(timing)
    low, high = speedup_interval(speedups, alpha_pass=ALPHA_PASS, alpha_fail=alpha_fail(timed_limits))
    ends = [format_factor(end).removesuffix("x") if 0 < end < math.inf else "?" for end in (low, high)]
    return f"{format_factor(median(speedups.values))} [{ends[0]}, {ends[1]}]"


def _score(metric: str | None, score: float | None) -> str:
    if score is None:
        return NOT_MEASURED
    return (format_percentage if metric_in_unit_interval(metric) else format_number)(score, digits=4)


def _drop(case: Case) -> str:
    """A negative drop is a gain."""
    original, variant = case.original, case.variant
    if case.drop is None or original is None or variant is None or original.score is None or variant.score is None:
        return NOT_MEASURED
    # Two scores that differ by rounding only are equal.
    drop = 0.0 if math.isclose(original.score, variant.score, rel_tol=1e-12) else case.drop
    shown = format_points(drop) if metric_in_unit_interval(case.metric) else format_number(drop, digits=4)
    return f"{shown}{_bound(case)}"


def _bound(case: Case) -> str:
    """The one-sided 95% bound of the drop in the population, so that nobody takes 0 of 300 examples for proof."""
    if case.agreement is not None:
        changed = case.agreement
        _, upper = drop_bounds(changed.right_to_wrong, changed.wrong_to_right, changed.examples)
    elif case.interval is not None:
        upper = case.interval.high
    else:
        return ""
    in_points = metric_in_unit_interval(case.metric)
    return f" (< {format_number(100 * upper if in_points else upper, digits=2)})"


def _verdict(case: Case, outcome: CaseOutcome) -> str:
    if outcome == "warn":
        count = warnings(case)
        return f"pass, {count} warning{'' if count == 1 else 's'}"
    if outcome == "pass":
        waived = sum(verdict.outcome == "waived" for verdict in case.verdicts)
        return f"pass, {waived} waived" if waived else "pass"
    return "FAIL" if outcome == "fail" else outcome
