"""Figures of a case as flat properties, which every CI system shows beside a test in a JUnit file."""

from __future__ import annotations

from statistics import median

from pytest_modelopt.budgets.slices import slice_rows, worst_first
from pytest_modelopt.record.model import Case
from pytest_modelopt.report.answers import counts_right
from pytest_modelopt.report.plain import plain_line


def properties(case: Case) -> list[tuple[str, str | float | int]]:
    """Name and value of what was measured; a figure that is missing has no property.

    Bytes and seconds as they are, memory by the meter of the comparison (`memory_meter` where it is not torch's
    allocator); reductions and coverage as shares, 0.25 for a quarter; score and drop in the
    metric's own unit. What the doctor found stands by the name of its rule.
    """
    original, variant, timing, agreement = case.original, case.variant, case.timing, case.agreement
    timed = timing is not None and bool(timing.pairs)
    process = variant.process_memory if variant else None
    figures: dict[str, str | float | int | None] = {
        "model": plain_line(case.model),
        "recipe": plain_line(case.recipe),
        "memory_bytes": case.memory_bytes(variant),
        "memory_meter": process.meter if process and case.foreign_runtimes else None,
        "memory_reduction": _reduction(case.memory_bytes(original), case.memory_bytes(variant)),
        "process_memory_bytes": process.bytes if process else None,
        "reserved_bytes": variant.reserved_bytes if variant else None,
        "size_bytes": variant.size_bytes if variant else None,
        "size_reduction": _reduction(
            original.size_bytes if original else None, variant.size_bytes if variant else None
        ),
        "latency_s": median(timing.variant_latencies_s()) if timing and timed else None,
        "speedup": median(timing.speedups()) if timing and timed else None,
        "score": variant.score if variant else None,
        "drop": case.drop,
        "flips": agreement.flips if agreement else None,
        "right_to_wrong": agreement.right_to_wrong if agreement and counts_right(case) else None,
        "wrong_to_right": agreement.wrong_to_right if agreement and counts_right(case) else None,
        "worst_slice_drop": _worst_slice_drop(case),
        "coverage": case.coverage.share if case.coverage and case.coverage.weight_bytes else None,
        "multiply_adds_coverage": case.coverage.multiply_adds_share if case.coverage else None,
    }
    found = [(f"modelopt.finding.{plain_line(finding.rule)}", plain_line(finding.text)) for finding in case.findings]
    return [*((f"modelopt.{name}", figure) for name, figure in figures.items() if figure is not None), *found]


def _worst_slice_drop(case: Case) -> float | None:
    ranked = worst_first(slice_rows(case.slices)) if case.slices is not None else []
    return None if not ranked or ranked[0].drop is None else float(ranked[0].drop)


def _reduction(original: int | None, variant: int | None) -> float | None:
    return None if variant is None or not original else 1 - variant / original
