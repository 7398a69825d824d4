"""The columns that a reader asks for: coverage, both ends of intervals, bounds, flips and the share of each change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.reporting.cells import (
    NOT_MEASURED,
    bounded_drop_cell,
    flips_cell,
    latency_cell,
    memory_cell,
    size_cell,
    slowdown_cell,
    speedup_cell,
    throughput,
)
from pytest_modelopt.reporting.columns import Column
from pytest_modelopt.reporting.table import Block
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_percentage


def detail_columns(block: Block) -> list[Column]:
    """Of the variants of a block that were measured; empty where none was."""
    rows = [row for row in block.rows if row.case is not None and row.has_figures and not row.is_original]
    cases = [row.case for row in rows if row.case is not None]
    if not cases:
        return []
    columns = [
        Column("verdict", tuple(row.verdict for row in rows), "left"),
        Column("recipe", tuple(row.recipe for row in rows), "left"),
        *(_column(name, cell, cases, is_timed=name in _TIMED) for name, cell in _cells_by_name(block).items()),
    ]
    return [column for column in columns if any(cell != NOT_MEASURED for cell in column.cells)]


_TIMED = ("latency", "speedup", "slowdown")


def _cells_by_name(block: Block) -> dict[str, Callable[[Case], str]]:
    ratio: dict[str, Callable[[Case], str]] = {"speedup": lambda case: _speedup(case, block.timed_limits)}
    if block.is_against_base:
        ratio = {"slowdown": lambda case: _slowdown(case, block.timed_limits)}
    return {
        "changed": _changed,
        "memory": memory_cell,
        "size": size_cell,
        _loss(block): bounded_drop_cell,
        "flips": flips_cell,
        "latency": _latency,
        **ratio,
    }


def _column(name: str, cell: Callable[[Case], str], cases: Sequence[Case], *, is_timed: bool) -> Column:
    return Column(name, tuple(cell(case) for case in cases), is_timed=is_timed)


def _loss(block: Block) -> str:
    return "loss" if block.is_against_base else "drop"


def legend(block: Block) -> str:
    """What the cells hold: '' where they speak for themselves."""
    cases = block.cases
    told = [f"in brackets: the change from the {'base' if block.is_against_base else 'original'}"]
    if any(case.coverage is not None and case.coverage.multiply_adds for case in cases):
        told.append("changed: weight bytes / multiply-adds")
    if any(case.agreement or case.interval for case in cases):
        judged = ", which limits are judged by" if any(case.inference == "population" for case in cases) else ""
        told.append(f"{_loss(block)}: with its 95% bound{judged}")
    if any(case.batch_size > 1 and Derived(case).timing for case in cases):
        told.append("latency: with examples a second of the variant")
    if any(case.foreign_runtimes for case in cases):
        told.append("* memory of fresh processes")
    return "; ".join(told)


# --- cells -----------------------------------------------------------------------------------------------------------


def _changed(case: Case) -> str:
    """Of the weight bytes, and of the multiply-adds where they were counted: `94% / 88%`."""
    if case.variant is not None and case.variant.provenance is not None:
        return "candidate"
    if case.coverage is None:
        return NOT_MEASURED
    shares = [case.coverage.share, case.coverage.multiply_adds_share]
    return " / ".join(format_percentage(round(share, 4)) for share in shares if share is not None)


def _latency(case: Case) -> str:
    timing = Derived(case).timing
    return NOT_MEASURED if timing is None else f"{latency_cell(timing)}{throughput(case)}"


def _speedup(case: Case, timed_limits: int) -> str:
    timing = Derived(case).timing
    return NOT_MEASURED if timing is None else speedup_cell(timing, timed_limits)


def _slowdown(case: Case, timed_limits: int) -> str:
    timing = Derived(case).timing
    return NOT_MEASURED if timing is None else slowdown_cell(timing, timed_limits)
