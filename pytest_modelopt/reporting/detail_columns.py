"""The columns that a reader asks for: coverage, providers, intervals, bounds, flips and shares of changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.reporting.cells import (
    NOT_MEASURED,
    bounded_drop_cells,
    flips_cell,
    latency_cells,
    memory_cells,
    size_cells,
    slowdown_cells,
    speedup_cells,
    throughput,
)
from pytest_modelopt.reporting.columns import Column
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.table import Block
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_percentage
from pytest_modelopt.results.measurement import Measurement


def detail_columns(block: Block) -> list[Column]:
    """Of the variants of a block that were measured; empty where none was."""
    rows = [row for row in block.rows if row.case is not None and row.has_figures and not row.is_original]
    cases = [row.case for row in rows if row.case is not None]
    if not cases:
        return []
    columns = [
        Column("verdict", tuple(row.verdict for row in rows), "left"),
        Column("recipe", tuple(row.recipe for row in rows), "left"),
        *(Column(name, tuple(cells), is_timed=name in _TIMED) for name, cells in _cells_by_name(block, cases).items()),
    ]
    return [column for column in columns if any(cell != NOT_MEASURED for cell in column.cells)]


_TIMED = ("latency", "speedup", "slowdown")


def _cells_by_name(block: Block, cases: Sequence[Case]) -> dict[str, Iterable[str]]:
    timings = [Derived(case).timing for case in cases]
    ratio: dict[str, Iterable[str]] = {"speedup": speedup_cells(timings, block.timed_limits)}
    if block.is_against_base:
        ratio = {"slowdown": slowdown_cells(timings, block.timed_limits)}
    latencies = zip(latency_cells(timings), map(throughput, cases), strict=True)
    return {
        "changed": map(_changed, cases),
        "runs on": map(_runs_on, cases),
        "memory": memory_cells(cases),
        "size": size_cells(cases),
        _loss(block): bounded_drop_cells(cases),
        "flips": map(flips_cell, cases),
        "latency": (f"{latency}{rate}" for latency, rate in latencies),
        **ratio,
    }


def _loss(block: Block) -> str:
    return "loss" if block.is_against_base else "drop"


def legend(block: Block) -> str:
    """What the cells hold: '' where they speak for themselves."""
    cases = block.cases
    told = [f"in brackets: the change from the {'base' if block.is_against_base else 'original'}"]
    if any(case.coverage is not None and case.coverage.multiply_adds for case in cases):
        told.append("changed: weight bytes / multiply-adds")
    if any(_runs_on(case) != NOT_MEASURED for case in cases):
        told.append("runs on: the share of a session's operators by provider")
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


def _runs_on(case: Case) -> str:
    """`75% CUDA, 25% CPU`, of each session, with the original's where it is another: of how much its device is used."""
    before, after = _shares(case.reference), _shares(case.variant)
    return f"{after or NOT_MEASURED} (original: {before})" if before not in ("", after) else after or NOT_MEASURED


def _shares(side: Measurement | None) -> str:
    seen = side.observations if side is not None else None
    told = []
    for session in (seen.sessions if seen is not None else None) or ():
        whole = sum(session.operators.values())
        if whole > 0 and min(session.operators.values()) >= 0:  # a record may say anything
            shares = (
                f"{format_percentage(round(number / whole, 4))} {plain_line(name.removesuffix('ExecutionProvider'))}"
                for name, number in session.operators.items()
            )
            told.append(", ".join(shares))
    return "; ".join(told)
