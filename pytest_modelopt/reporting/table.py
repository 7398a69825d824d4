"""The table of one model's variants against their original: cells are strings, made once for all forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.reporting.cells import (
    NOT_MEASURED,
    PROCESS_METER,
    drop_cell,
    flips_cell,
    latency_cell,
    memory_cell,
    or_dash,
    score_cell,
    size_cell,
    speedup_cell,
    throughput,
    timed,
)
from pytest_modelopt.reporting.names import machine_title
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import (
    format_bytes,
    format_count,
    format_first,
    format_number,
    format_percentage,
    format_time,
)
from pytest_modelopt.results.measurement import Coverage, Measurement
from pytest_modelopt.results.metric import in_unit_interval
from pytest_modelopt.results.outcome import CaseOutcome, case_outcome, is_red, warnings
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.workload import at_workload
from pytest_modelopt.statistics.proportions import drop_bounds

HEADERS = ("recipe", "changed", "memory", "size", "latency", "speedup", "score", "drop", "flips", "verdict")
ALIGNMENTS = ("left", "right", "right", "right", "right", "right", "right", "right", "right", "left")

_SHAPES_SHOWN = 3
_SHORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,13}")
_Figure = TypeVar("_Figure")


@dataclass(frozen=True)
class Row:
    """One variant: its cells in the order of `HEADERS`. The original's has no case and no outcome, unless it has limits
    of its own."""

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
    case: Case | None = None
    outcome: CaseOutcome | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in HEADERS)


_AnyRow = TypeVar("_AnyRow")


@dataclass(frozen=True)
class TableBlock(Generic[_AnyRow]):
    """One table of a model, whatever its rows are."""

    names: ClassVar[tuple[str, ...]]
    alignments: ClassVar[tuple[str, ...]]

    title: str
    """The model, its base where there is one, and its machine where the record has several."""
    model: str
    metric: str | None
    rows: tuple[_AnyRow, ...]
    conditions: str
    """What the figures belong to: 'accuracy on 360 examples; latency of batch 1, 1 thread'."""
    is_red: bool

    @property
    def headers(self) -> tuple[str, ...]:
        """`names` as this block shows them."""
        return headers_of(self.names, self.metric)


class Block(TableBlock[Row]):
    """One model, scored with one metric: the original's row at each workload, then the rows of the cases in order."""

    names = HEADERS
    alignments = ALIGNMENTS


def headers_of(names: tuple[str, ...], metric: str | None) -> tuple[str, ...]:
    """Columns as they are shown: a score is called by its metric, where that has a short name."""
    shown = metric if metric is not None and _SHORT_NAME.fullmatch(metric) else "score"
    return tuple(shown if name == "score" else name for name in names)


def blocks(record: Record) -> list[Block]:
    """One table for each (machine, model, metric, device), and for each batch size of a model without workloads, in the
    order of their first cases.

    Cases that are compared with a base are not in them: `report.tables` has all.
    """
    return [block_of(record, cases) for cases in grouped(case for case in record.cases if case.base is None)]


def grouped(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases whose figures belong into one table, in the order of their first ones."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        base = None if case.base is None else case.base.name
        # Against a base all are scored by one metric, which is not known of those that were not measured there.
        metric = case.metric if base is None else None
        batch_size = None if case.workload else case.batch_size  # workloads stand in one table
        key = (case.machine, case.model, metric, batch_size, case.device, case.generation, base)
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def block_of(record: Record, cases: list[Case]) -> Block:
    """The table of cases that have the model, the metric, the batch size, the device and the machine in common."""
    first = cases[0]
    machine = machine_title(record, first.machine)
    return Block(
        title=plain_line(first.model) + (f" on {machine}" if machine else ""),
        model=plain_line(first.model),
        metric=None if metric_of(cases) is None else plain_line(str(metric_of(cases))),
        rows=(
            *(_original_row(record, at_one) for at_one in by_workload(cases)),
            *(_variant_row(record, case) for case in cases if case.recipe != ORIGINAL),
        ),
        conditions=f"{scored(cases)}{_format_bounds(cases)}; {measured(cases)}{_legend(cases)}",
        is_red=any(is_red(case, record.strict) for case in cases),
    )


def scored(cases: list[Case]) -> str:
    """'accuracy on 360 examples': with what, and on how much."""
    metric = metric_of(cases)
    if metric is None:
        return "no data, so no score" if any(_had_no_data(case) for case in cases) else "no metric"
    examples = _latest(side.examples or None for case in cases for side in _sides(case))
    on = "" if examples is None else f" on {examples} example{'' if examples == 1 else 's'}"
    return f"{plain_line(metric)}{on}"


def metric_of(cases: list[Case]) -> str | None:
    """The metric of a table's cases; None where no case was scored."""
    return next((case.metric for case in cases if case.metric is not None and not _had_no_data(case)), None)


def _had_no_data(case: Case) -> bool:
    """Whether it was measured, and there was nothing to score it on: then its metric is one that nobody stated."""
    sides = _sides(case)
    return bool(sides) and all(not side.examples and "score" in side.unmeasured for side in sides)


def _sides(case: Case) -> list[Measurement]:
    return [side for side in (case.variant, case.reference) if side is not None]


def by_workload(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases at each workload, in the order of their first ones."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.workload, []).append(case)
    return list(found.values())


def measured(cases: list[Case]) -> str:
    """'memory and latency of batch 1 (1x64), 1 thread', and what the mark at memory figures means. Of several workloads
    what they have in common is said once: '... of batch 1 (1x64) @ online and batch 32 (32x64) @ night, 1 thread'."""
    points = by_workload(cases)
    is_timed = any(case.timing is not None for case in cases)
    threads = dict.fromkeys(filter(None, map(_format_threads, points)))
    apart = [f", {_format_threads(point)}" if len(threads) > 1 else "" for point in points]
    calls = [f"{_format_call(point)}{each}" for point, each in zip(points, apart, strict=True)]
    named = [at_workload(told, plain_line(point[0].workload)) for told, point in zip(calls, points, strict=True)]
    if len(dict.fromkeys(calls)) == 1:
        named = [", ".join(dict.fromkeys(calls))]
    rate = " (examples a second of the variant)" if any(case.batch_size > 1 for case in cases) else ""
    told = f"memory{f' and latency{rate}' if is_timed else ''} of {'; '.join(named)}"
    if len(threads) == 1:
        told += f", {next(iter(threads))}"
    return f"{told}{_meter(cases)}"


def _format_call(cases: list[Case]) -> str:
    """'batch 1 (1x64)': examples in the call, and the sizes of its tensors, equal ones once."""
    first = next((case for case in cases if case.input_shapes), cases[0])
    sizes = dict.fromkeys("x".join(map(str, shape)) for shape in first.input_shapes if shape)
    told = f" ({format_first(sizes, _SHAPES_SHOWN)})" if sizes else ""
    on = "" if first.device == "cpu" else f" on {plain_line(first.device)}"
    if first.generation is not None:
        told = f", {first.generation.prompt:,} tokens of prompt and {first.generation.new_tokens:,} steps"
    return f"batch {first.batch_size}{told}{on}"


def _format_threads(cases: list[Case]) -> str:
    """'1 thread', where something was timed on the CPU."""
    threads = _latest(case.timing.threads if case.timing else None for case in cases)
    if threads is None or cases[0].device != "cpu":
        return ""
    return format_count(threads, "thread")


def _format_bounds(cases: list[Case]) -> str:
    if not any(case.agreement or case.interval for case in cases):
        return ""
    judged = ", which limits are judged by" if any(case.inference == "population" for case in cases) else ""
    return f" (drop: with its 95% bound{judged})"


def _legend(cases: list[Case]) -> str:
    counted = any(case.coverage is not None and case.coverage.multiply_adds for case in cases)
    return "; changed: weight bytes / multiply-adds" if counted else ""


def _meter(cases: list[Case]) -> str:
    """What the mark at memory figures means, where there is one."""
    runtimes = list(dict.fromkeys(plain_line(name) for case in cases for name in case.foreign_runtimes))
    sides = [side for case in cases if case.foreign_runtimes for side in (case.reference, case.variant)]
    meters = list(dict.fromkeys(side.process_memory.meter for side in sides if side and side.process_memory))
    if not meters:
        return ""
    return f" ({PROCESS_METER} memory of fresh processes by {' and '.join(meters)}, for {' and '.join(runtimes)})"


def _original_row(record: Record, cases: list[Case]) -> Row:
    """The original is measured once and handed to all its cases; its latency stands with each comparison.

    Where it has limits of its own, one of the cases is its own, too.
    """
    own = next((case for case in cases if case.recipe == ORIGINAL), None)
    outcome = None if own is None else case_outcome(own, record.strict)
    timing = None if own is None else timed(own)

    def latest(figure: Callable[[Measurement], _Figure | None]) -> _Figure | None:
        return _latest(figure(case.reference) if case.reference else None for case in cases)

    return Row(
        recipe=at_workload(ORIGINAL, plain_line(cases[0].workload)),
        changed="",
        memory=_original_memory(cases),
        size=or_dash(format_bytes, latest(lambda original: original.size_bytes)),
        latency=f"{format_time(latencies_s(timing)[1])}{throughput(own)}" if timing and own else "",
        speedup="",
        score=score_cell(cases[0].metric, latest(lambda original: original.score)),
        drop="",
        flips="",
        verdict="" if own is None or outcome is None else verdict_cell(own, outcome),
        case=own,
        outcome=outcome,
    )


def _variant_row(record: Record, case: Case) -> Row:
    outcome = case_outcome(case, record.strict)
    recipe, verdict = plain_line(case.row) or NOT_MEASURED, verdict_cell(case, outcome)
    if outcome == "error" and not failed_after_measuring(case):
        return Row(recipe, *(8 * (NOT_MEASURED,)), verdict, case, outcome)
    variant, timing = case.variant, timed(case)
    return Row(
        recipe=recipe,
        changed="candidate" if variant is not None and variant.provenance is not None else _changed(case.coverage),
        memory=memory_cell(case),
        size=size_cell(case),
        latency=f"{latency_cell(timing)}{throughput(case)}" if timing else NOT_MEASURED,
        speedup=speedup_cell(timing, record.timed_limits) if timing else NOT_MEASURED,
        score=score_cell(case.metric, variant.score if variant else None),
        drop=_drop(case),
        flips=flips_cell(case),
        verdict=verdict,
        case=case,
        outcome=outcome,
    )


def failed_after_measuring(case: Case) -> bool:
    """Whether the case has figures to show, though its test failed."""
    return case.error is not None and case.error.stage == "test" and case.variant is not None


def _changed(coverage: Coverage | None) -> str:
    """Of the weight bytes, and of the multiply-adds where they were counted: `94% / 88%`."""
    if coverage is None:
        return NOT_MEASURED
    shares = [coverage.share, coverage.multiply_adds_share]
    return " / ".join(format_percentage(round(share, 4)) for share in shares if share is not None)


def _latest(figures: Iterable[_Figure | None]) -> _Figure | None:
    return next((figure for figure in reversed(list(figures)) if figure is not None), None)


def _original_memory(cases: list[Case]) -> str:
    """By each meter that the comparisons below it use."""
    by_tensors = _latest(case.memory_bytes(case.reference) for case in cases if not case.foreign_runtimes)
    by_process = _latest(case.memory_bytes(case.reference) for case in cases if case.foreign_runtimes)
    told = [] if by_tensors is None else [format_bytes(by_tensors)]
    told += [] if by_process is None else [f"{format_bytes(by_process)}{PROCESS_METER}"]
    return ", ".join(told) or NOT_MEASURED


def _drop(case: Case) -> str:
    """A negative drop is a gain."""
    drop = case.drop
    return NOT_MEASURED if drop is None else f"{drop_cell(case, drop)}{_bound(case)}"


def _bound(case: Case) -> str:
    """The one-sided 95% bound of the drop in the population, so that nobody takes 0 of 300 examples for proof."""
    if case.agreement is not None:
        changed = case.agreement
        _, upper = drop_bounds(changed.right_to_wrong, changed.wrong_to_right, changed.examples)
    elif case.interval is not None:
        upper = case.interval.high
    else:
        return ""
    in_points = in_unit_interval(case.metric)
    return f" (< {format_number(100 * upper if in_points else upper, digits=2)})"


def verdict_cell(case: Case, outcome: CaseOutcome) -> str:
    """The case's outcome in the words of a table."""
    if outcome == "warn":
        count = warnings(case)
        return f"pass, {count} warning{'' if count == 1 else 's'}"
    if outcome == "pass":
        waived = sum(verdict.outcome == "waived" for verdict in case.verdicts)
        return f"pass, {waived} waived" if waived else "pass"
    return "FAIL" if outcome == "fail" else outcome
