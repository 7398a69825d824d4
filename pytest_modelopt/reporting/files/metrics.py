"""Figures of a record as OpenMetrics text, which GitLab compares between branches and Prometheus reads.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md: one family after the other, each with
its TYPE, its UNIT (a suffix of its name) and its HELP, and '# EOF' at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record

NAME = "metrics.txt"


@dataclass(frozen=True)
class _Family:
    name: str
    unit: str
    """'' for a figure that has none, as a score."""
    help: str


_FAMILIES = {
    family.name: family
    for family in (
        _Family("modelopt_memory_bytes", "bytes", "Peak memory of one call, weights included."),
        _Family("modelopt_process_memory_bytes", "bytes", "Peak of a fresh process that loads and calls the variant."),
        _Family("modelopt_size_bytes", "bytes", "Bytes of the saved variant."),
        _Family("modelopt_latency_seconds", "seconds", "Median time of one call."),
        _Family("modelopt_p95_latency_seconds", "seconds", "Time within which 95% of single calls are done."),
        _Family("modelopt_load_seconds", "seconds", "Time of a fresh process from loading to the first answer."),
        _Family("modelopt_throughput_examples", "examples", "Examples a second of the timed batch."),
        _Family("modelopt_speedup_ratio", "ratio", "Latency of the original divided by that of the variant."),
        _Family("modelopt_score", "", "Score on the evaluation data, in the unit of its metric."),
        _Family("modelopt_drop", "", "How much worse the score is than the original's."),
        _Family("modelopt_flips", "", "Examples whose prediction differs from the original's."),
        _Family("modelopt_coverage_ratio", "ratio", "Share of the weight bytes that the recipe changed."),
        _Family("modelopt_memory_growth_ratio", "ratio", "Share by which memory grew since the base."),
        _Family("modelopt_size_growth_ratio", "ratio", "Share by which the saved bytes grew since the base."),
        _Family("modelopt_slowdown_ratio", "ratio", "Share by which one call takes longer than at the base."),
        _Family("modelopt_loss", "", "How much worse the score is than at the base."),
        _Family("modelopt_changed_answers", "", "Examples whose prediction differs from the base's."),
    )
}

_Labels = tuple[tuple[str, str], ...]


def render(record: Record) -> str:
    """Gauges for every finite figure, with the labels `model` and `recipe` ('original' for the model without one).

    `workload` stands beside them where a model has workloads, `base` beside what is held against one, `machine` where
    a record has several, and `case`, the node id, where several tests measure the same variant.
    """
    samples: dict[str, dict[_Labels, float]] = {name: {} for name in _FAMILIES}
    for labels, figures in _figures(record):
        for name, figure in figures.items():
            if figure is not None and math.isfinite(figure):
                samples[name].setdefault(labels, figure)
    return "".join(f"{line}\n" for line in _lines(samples)) + "# EOF\n"


def _lines(samples: Mapping[str, Mapping[_Labels, float]]) -> Iterator[str]:
    for name, found in samples.items():
        if not found:
            continue
        family = _FAMILIES[name]
        yield f"# TYPE {name} gauge"
        if family.unit:
            yield f"# UNIT {name} {family.unit}"
        yield f"# HELP {name} {family.help}"
        for labels, figure in found.items():
            listed = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
            yield f"{name}{{{listed}}} {figure!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _figures(record: Record) -> Iterator[tuple[_Labels, dict[str, float | None]]]:
    """Labels and figures, what is measured in its own case before what another case measures of the same variant."""
    repeated = Counter(_variant(case) for case in record.cases)
    for case in record.cases:
        if case.base is None and case.error is None:
            yield _labels(record, case, case.recipe, repeated), _against_original(case)
    for case in record.cases:
        if case.base is None and case.reference is not None:
            yield _labels(record, case, ORIGINAL, Counter()), _alone(case, case.reference)
    for case in record.cases:
        if case.base is not None and case.error is None:
            if case.recipe == ORIGINAL and case.variant is not None:
                yield _labels(record, case, ORIGINAL, Counter()), _alone(case, case.variant)
            yield _labels(record, case, case.recipe, repeated), _against_base(case)


def _variant(case: Case) -> tuple[str, str, str, str, int]:
    return case.model, case.recipe, case.workload, "" if case.base is None else case.base.name, case.machine


def _labels(record: Record, case: Case, recipe: str, repeated: Mapping[tuple[str, str, str, str, int], int]) -> _Labels:
    labels = [("model", case.model), ("recipe", recipe)]
    if case.workload:
        labels.append(("workload", case.workload))
    if case.base is not None and repeated:
        labels.append(("base", case.base.name))
    if record.other_machines:
        labels.append(("machine", str(case.machine + 1)))
    if repeated.get(_variant(case), 0) > 1:
        labels.append(("case", case.id))
    return tuple((name, plain_line(value)) for name, value in labels)


def _alone(case: Case, side: Measurement) -> dict[str, float | None]:
    return {
        "modelopt_memory_bytes": case.memory_bytes(side),
        "modelopt_process_memory_bytes": side.process_memory.bytes if side.process_memory else None,
        "modelopt_size_bytes": side.size_bytes,
        "modelopt_score": side.score,
    }


def _against_original(case: Case) -> dict[str, float | None]:
    figures, coverage = Derived(case), case.coverage
    return {
        **(_alone(case, case.variant) if case.variant is not None else {}),
        "modelopt_latency_seconds": figures.latency_s,
        "modelopt_p95_latency_seconds": figures.p95_latency_s,
        "modelopt_load_seconds": figures.load_time_s,
        "modelopt_throughput_examples": figures.examples_per_second,
        "modelopt_speedup_ratio": figures.speedup,
        "modelopt_drop": figures.drop,
        "modelopt_flips": case.agreement.flips if case.agreement else None,
        "modelopt_coverage_ratio": coverage.share if coverage and coverage.weight_bytes else None,
    }


def _against_base(case: Case) -> dict[str, float | None]:
    figures = Derived(case)
    return {
        "modelopt_memory_growth_ratio": figures.memory_growth,
        "modelopt_size_growth_ratio": figures.size_growth,
        "modelopt_slowdown_ratio": figures.slowdown,
        "modelopt_loss": figures.drop,
        "modelopt_changed_answers": case.agreement.flips if case.agreement else None,
    }
