"""The tables of a record: a block for each model, with a row for the original and for each variant; no cells yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pytest_modelopt.reporting.names import machine_title, on_machine
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import format_count, format_first
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.outcome import CaseOutcome, case_outcome, is_red
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.workload import at_workload

_SHAPES_SHOWN = 3
_SHORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,13}")
_Figure = TypeVar("_Figure")
_VERDICTS: dict[CaseOutcome, str] = {
    "error": "✗ ERROR",
    "fail": "✗ FAIL",
    "inconclusive": "? inconclusive",
    "warn": "! warn",
    "pass": "✓ pass",
}
"""Symbol and word say the same; an outcome that is neither good nor bad has its word only."""


@dataclass(frozen=True)
class Row:
    """One variant. The original's row has no case and no outcome, unless the original has limits of its own."""

    recipe: str
    verdict: str
    case: Case | None
    outcome: CaseOutcome | None
    compared: tuple[Case, ...] = ()
    """Of the original's row: the cases that it was measured for."""

    @property
    def is_original(self) -> bool:
        """Whether it is what the rows below it are compared with."""
        return bool(self.compared)

    @property
    def has_figures(self) -> bool:
        """Whether the case was measured, though its test may have failed."""
        if self.outcome == "new" or self.case is None:
            return False
        return self.outcome != "error" or failed_after_measuring(self.case)

    @property
    def is_judged(self) -> bool:
        return self.has_figures and self.case is not None and self.case.error is None


@dataclass(frozen=True)
class Block:
    """One model, scored with one metric: the original's row at each workload, then the rows of the cases in order.

    Against a base there is a row for each variant, the one without a recipe included.
    """

    title: str
    """The model, its base where there is one, and its machine where the record has several."""
    metric: str | None
    rows: tuple[Row, ...]
    conditions: str
    """What the figures belong to: 'accuracy on 360 examples; memory and latency of batch 1, 1 thread'."""
    is_red: bool
    is_against_base: bool
    strict: bool
    timed_limits: int

    @property
    def score_name(self) -> str:
        """What its scores are called: by the metric, where that has a short name."""
        return self.metric if self.metric is not None and _SHORT_NAME.fullmatch(self.metric) else "score"

    @property
    def cases(self) -> list[Case]:
        return [row.case for row in self.rows if row.case is not None]


def blocks(record: Record) -> list[Block]:
    """One for each (machine, model, metric, device, base), and for each batch size of a model without workloads, in the
    order of their first cases; where there are targets, the machines of a case stand below each other in one. None for
    tests that failed before they named a recipe: all is said by their error."""
    told = (cases for cases in _grouped(record) if any(each.row or _sides(each) for each in cases))
    return [_block(record, cases) for cases in told]


def _grouped(record: Record) -> list[list[Case]]:
    """Cases whose figures belong into one table, in the order of their first ones."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    order: dict[str, int] = {}
    for case in record.cases:
        order.setdefault(case.id, len(order))
    for case in sorted(record.cases, key=lambda case: order[case.id]) if record.targets else record.cases:
        base = None if case.base is None else case.base.name
        # Against a base all are scored by one metric, which is not known of those that were not measured there.
        metric = case.metric if base is None else None
        batch_size = None if case.workload else case.batch_size  # workloads stand in one table
        machine = None if record.targets else case.machine
        key = (machine, case.model, metric, batch_size, case.device, case.generation, base)
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def _block(record: Record, cases: list[Case]) -> Block:
    first = cases[0]
    machine = "" if record.targets else machine_title(record, first.machine)
    model, base = plain_line(first.model), None if first.base is None else plain_line(first.base.name)
    metric = metric_of(cases)
    points = [point for at_one in _by_workload(cases) for point in _by_machine(at_one)]
    originals = [] if base is not None else [_original_row(record, point) for point in points]
    variants = [case for case in cases if base is not None or case.recipe != ORIGINAL]
    return Block(
        title=model + (f" against {base}" if base is not None else "") + (f" on {machine}" if machine else ""),
        metric=None if metric is None else plain_line(metric),
        rows=(*originals, *(_variant_row(record, case) for case in variants)),
        conditions=f"{_scored(cases)}; {_measured(cases)}" + (f"; {base} -> head" if base is not None else ""),
        is_red=any(is_red(case, record.strict) for case in cases),
        is_against_base=base is not None,
        strict=record.strict,
        timed_limits=record.timed_limits,
    )


# --- rows ------------------------------------------------------------------------------------------------------------


def _original_row(record: Record, cases: list[Case]) -> Row:
    """The original is measured once and handed to all its cases; where it has limits of its own, one is its own."""
    own = next((case for case in cases if case.recipe == ORIGINAL), None)
    outcome = None if own is None else case_outcome(own, record.strict)
    return Row(
        recipe=at_workload(ORIGINAL, plain_line(cases[0].workload)) + _on_target(record, cases[0]),
        verdict="" if own is None or outcome is None else verdict_cell(own, outcome),
        case=own,
        outcome=outcome,
        compared=tuple(cases),
    )


def _variant_row(record: Record, case: Case) -> Row:
    outcome = case_outcome(case, record.strict)
    return Row((plain_line(case.row) or "-") + _on_target(record, case), verdict_cell(case, outcome), case, outcome)


def _on_target(record: Record, case: Case) -> str:
    """' on target arm', ' on machine 2'; '' for a record of one machine, and without targets."""
    return on_machine(record, case) if record.targets else ""


def verdict_cell(case: Case, outcome: CaseOutcome) -> str:
    """The case's outcome in the words of a table: '✗ FAIL', '✓ pass', 'no base'."""
    if case.base is not None and case.base.status not in ("compared", "new") and outcome not in ("error", "fail"):
        return "not compared" if case.base.status == "unpaired" else "no base"
    if outcome == "pass" and any(verdict.outcome == "waived" for verdict in case.verdicts):
        return "✓ waived"
    return _VERDICTS.get(outcome, outcome)


def failed_after_measuring(case: Case) -> bool:
    """Whether the case has figures to show, though its test failed, or its limits do not fit them."""
    return case.error is not None and case.error.stage in ("test", "limits") and case.variant is not None


# --- what the figures belong to --------------------------------------------------------------------------------------


def _scored(cases: list[Case]) -> str:
    """'accuracy on 360 examples': with what, and on how much."""
    metric = metric_of(cases)
    if metric is None:
        if any(_had_no_data(case) for case in cases):
            return "no data, so no score"
        return "no metric" if any(case.error is None for case in cases) else "not scored"
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


def _by_workload(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases at each workload, in the order of their first ones."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.workload, []).append(case)
    return list(found.values())


def _by_machine(cases: Iterable[Case]) -> list[list[Case]]:
    found: dict[int, list[Case]] = {}
    for case in cases:
        found.setdefault(case.machine, []).append(case)
    return [found[machine] for machine in sorted(found)]


def _measured(cases: list[Case]) -> str:
    """'memory and latency of batch 1 (1x64), 1 thread', and by which meter the memory of processes is. Of several
    workloads what they have in common is said once: '... of batch 1 (1x64) @ online and batch 32 (32x64) @ night, 1
    thread'."""
    points = _by_workload(cases)
    is_timed = any(case.timing is not None for case in cases)
    threads = dict.fromkeys(filter(None, map(_format_threads, points)))
    apart = [f", {_format_threads(point)}" if len(threads) > 1 else "" for point in points]
    calls = [f"{_format_call(point)}{each}" for point, each in zip(points, apart, strict=True)]
    named = [at_workload(told, plain_line(point[0].workload)) for told, point in zip(calls, points, strict=True)]
    if len(dict.fromkeys(calls)) == 1:
        named = [", ".join(dict.fromkeys(calls))]
    told = f"memory{' and latency' if is_timed else ''} of {'; '.join(named)}"
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


def _meter(cases: list[Case]) -> str:
    """By what the memory of processes was measured, and why, where a runtime keeps the weights."""
    runtimes = list(dict.fromkeys(plain_line(name) for case in cases for name in case.foreign_runtimes))
    sides = [side for case in cases if case.foreign_runtimes for side in (case.reference, case.variant)]
    meters = list(dict.fromkeys(side.process_memory.meter for side in sides if side and side.process_memory))
    if not meters:
        return ""
    return f"; process memory: of fresh processes, by {' and '.join(meters)}, for {' and '.join(runtimes)}"


def _latest(figures: Iterable[_Figure | None]) -> _Figure | None:
    return next((figure for figure in reversed(list(figures)) if figure is not None), None)
