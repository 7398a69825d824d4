"""Figures of a case as flat properties, which every CI system shows beside a test in a JUnit file."""

from __future__ import annotations

import sys

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.slices import slice_rows, worst_first
from pytest_modelopt.reporting.changed_answers import counts_right
from pytest_modelopt.reporting.generation_notes import first_token_latencies_s, tokens_per_second
from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.base import Base
from pytest_modelopt.results.case import ORIGINAL, Case


def properties(case: Case) -> list[tuple[str, str | float | int]]:
    """Name and value of what was measured; a figure that is missing has no property.

    Bytes and seconds as they are, memory by the meter of the comparison (`memory_meter` where it is not torch's
    allocator); reductions and coverage as shares, 0.25 for a quarter; score and drop in the
    metric's own unit. What the doctor found stands by the name of its rule. Of a case that is held against a base:
    growth, slowdown and loss since then, as shares of the base's figures (loss: in the metric's own unit).
    """
    figures = _against_original(case) if case.base is None else _against_base(case, case.base)
    found = [
        (f"modelopt.finding.{plain_line(finding.rule)}", format_finding(case, finding)) for finding in case.findings
    ]
    stated = ((sys.intern(f"modelopt.{name}"), figure) for name, figure in figures.items() if figure is not None)
    return [*stated, *found]  # pytest keeps them to the end


def _against_original(case: Case) -> dict[str, str | float | int | None]:
    variant, agreement, figures = case.variant, case.agreement, Derived(case)
    process = variant.process_memory if variant else None
    first, rates = first_token_latencies_s(case), tokens_per_second(case)
    return {
        "model": plain_line(case.model),
        "recipe": plain_line(case.recipe),
        "workload": plain_line(case.workload) or None,
        "memory_bytes": case.memory_bytes(variant),
        "memory_meter": process.meter if process and case.foreign_runtimes else None,
        "memory_reduction": figures.memory_reduction,
        "process_memory_bytes": process.bytes if process else None,
        "reserved_bytes": variant.reserved_bytes if variant else None,
        "size_bytes": variant.size_bytes if variant else None,
        "size_reduction": figures.size_reduction,
        "latency_s": figures.latency_s,
        "p95_latency_s": figures.p95_latency_s,
        "load_time_s": figures.load_time_s,
        "examples_per_second": figures.examples_per_second,
        "speedup": figures.speedup,
        "first_token_latency_s": None if first is None else first[1],
        "tokens_per_second": None if rates is None else rates[1],
        "cache_bytes": variant.call_memory.cache_bytes if variant and variant.call_memory else None,
        "score": variant.score if variant else None,
        "drop": figures.drop,
        "flips": case.tokens.flips if case.tokens else agreement.flips if agreement else None,
        "right_to_wrong": agreement.right_to_wrong if agreement and counts_right(case) else None,
        "wrong_to_right": agreement.wrong_to_right if agreement and counts_right(case) else None,
        "worst_slice_drop": _worst_slice_drop(case),
        "coverage": case.coverage.share if case.coverage and case.coverage.weight_bytes else None,
        "multiply_adds_coverage": case.coverage.multiply_adds_share if case.coverage else None,
    }


def _against_base(case: Case, base: Base) -> dict[str, str | float | int | None]:
    figures = Derived(case)
    return {
        "model": plain_line(case.model),
        "recipe": plain_line(case.recipe),
        "workload": plain_line(case.workload) or None,
        "base": plain_line(base.name),
        "base_status": base.status,
        **(_alone(case) if case.recipe == ORIGINAL else {}),  # a recipe's figures stand with its own budget
        "memory_growth": figures.memory_growth,
        "size_growth": figures.size_growth,
        "slowdown": figures.slowdown,
        "loss": figures.drop,
        "changed_answers": case.agreement.flips if case.agreement else None,
    }


def _alone(case: Case) -> dict[str, str | float | int | None]:
    variant = case.variant
    return {
        "memory_bytes": case.memory_bytes(variant),
        "size_bytes": variant.size_bytes if variant else None,
        "latency_s": Derived(case).latency_s,
        "score": variant.score if variant else None,
    }


def _worst_slice_drop(case: Case) -> float | None:
    ranked = worst_first(slice_rows(case.slices)) if case.slices is not None else []
    return None if not ranked or ranked[0].drop is None else float(ranked[0].drop)
