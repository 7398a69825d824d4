"""Figures of a record under the names, labels and units by which other programs know them.

`metrics.txt`, every format of `report --format` and the page take them from here, so that no two of them differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.kind import LimitKind, Unit
from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.reporting.messages.figures import format_drop, format_score, in_points
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import (
    format_bytes,
    format_factor,
    format_number,
    format_percentage,
    format_time,
)
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Verdict

Labels = tuple[tuple[str, str], ...]
_Form = Callable[[Case, float], str]


@dataclass(frozen=True)
class Family:
    """One kind of figure."""

    name: str
    """'memory_bytes': what is measured, and its unit."""
    unit: str
    """'' for a figure that has none, as a score."""
    help: str
    form: _Form
    """The figure in words, with its unit."""
    limits: tuple[str, ...] = ()
    """Those that bound this very figure."""
    bigger_is_better: bool | None = False
    """None: as the metric of the case says."""
    called: str = ""
    """What people call it, where that is not the name without its unit."""
    column: Unit | None = None
    """How a table writes figures of different cases alike; None: each as it is, since they are counted."""

    @property
    def title(self) -> str:
        """'p95 latency', for people."""
        return self.called or self.name.removesuffix(f"_{self.unit}").replace("_", " ")

    def is_better_when_bigger(self, case: Case) -> bool:
        return case.higher_is_better if self.bigger_is_better is None else self.bigger_is_better


@dataclass(frozen=True)
class Sample:
    """One figure of one variant; a measurement that several cases share is there once."""

    family: Family
    labels: Labels
    """`model` and `recipe` ('original' for the model without one). `workload` stands beside them where a model has
    workloads, `base` beside what is held against one, `machine` where a record has several, and `case`, the node id,
    where several tests measure the same variant."""
    case: Case
    """The first that has it."""
    value: float
    """Finite; a whole number where it is counted."""
    low: float | None = None
    high: float | None = None
    """What the measurement allows it to be; None where it repeats, or has no such bound."""
    verdict: Verdict | None = None
    """On the limit that bounds it; the first where there are several."""
    is_of_variant: bool = True
    """Of the variant of its case, in its comparison; False: of an original by itself."""

    @property
    def text(self) -> str:
        return self.family.form(self.case, self.value)

    @property
    def name(self) -> str:
        """'digits-vit/int8-dynamic @ night against 1a2b3c4d5e6f on machine 2 (tests/test_a.py::test_b)'."""
        found = dict(self.labels)
        told = f"{found['model']}/{found['recipe']}"
        words = {"workload": " @ {}", "base": " against {}", "machine": " on machine {}", "case": " ({})"}
        return told + "".join(words[key].format(found[key]) for key in words if key in found)


def _of_bytes(case: Case, figure: float) -> str:
    return format_bytes(figure)


def _of_time(case: Case, figure: float) -> str:
    return format_time(figure)


def _of_factor(case: Case, figure: float) -> str:
    return format_factor(figure)


def _of_share(case: Case, figure: float) -> str:
    return format_percentage(figure)


def _of_count(case: Case, figure: float) -> str:
    return format_number(figure)


_COLUMNS: dict[_Form, Unit] = {
    _of_bytes: "bytes",
    _of_time: "time",
    _of_factor: "factor",
    _of_share: "percentage",
    format_score: "score",
    format_drop: "points",
}
_ALL = (
    Family("memory_bytes", "bytes", "Peak memory of one call, weights included.", _of_bytes, ("max_memory",)),
    Family(
        "process_memory_bytes",
        "bytes",
        "Peak of a fresh process that loads and calls the variant.",
        _of_bytes,
        ("max_process_memory",),
    ),
    Family("size_bytes", "bytes", "Bytes of the saved variant.", _of_bytes, ("max_size",)),
    Family("latency_seconds", "seconds", "Median time of one call.", _of_time, ("max_latency",)),
    Family(
        "p95_latency_seconds",
        "seconds",
        "Time within which 95% of single calls are done.",
        _of_time,
        ("max_p95_latency",),
    ),
    Family(
        "load_seconds",
        "seconds",
        "Time of a fresh process from loading to the first answer.",
        _of_time,
        ("max_load_time",),
    ),
    Family(
        "throughput_examples",
        "examples",
        "Examples a second of the timed batch.",
        lambda case, figure: f"{format_number(figure)}/s",
        bigger_is_better=True,
    ),
    Family(
        "speedup_ratio",
        "ratio",
        "Latency of the original divided by that of the variant.",
        _of_factor,
        ("min_speedup",),
        bigger_is_better=True,
    ),
    Family(
        "score",
        "",
        "Score on the evaluation data, in the unit of its metric.",
        format_score,
        ("min_accuracy",),
        bigger_is_better=None,
    ),
    Family("drop", "", "How much worse the score is than the original's.", format_drop, ("max_accuracy_drop",)),
    Family("flips", "", "Examples whose prediction differs from the original's.", _of_count),
    Family(
        "coverage_ratio",
        "ratio",
        "Share of the weight bytes that the recipe changed.",
        _of_share,
        ("min_coverage",),
        bigger_is_better=True,
    ),
    Family(
        "memory_growth_ratio", "ratio", "Share by which memory grew since the base.", _of_share, ("max_memory_growth",)
    ),
    Family(
        "size_growth_ratio",
        "ratio",
        "Share by which the saved bytes grew since the base.",
        _of_share,
        ("max_size_growth",),
    ),
    Family(
        "slowdown_ratio",
        "ratio",
        "Share by which one call takes longer than at the base.",
        _of_share,
        ("max_slowdown",),
    ),
    Family("loss", "", "How much worse the score is than at the base.", format_drop, ("max_accuracy_loss",)),
    Family("changed_answers", "", "Examples whose prediction differs from the base's.", _of_count),
)
FAMILIES = {family.name: replace(family, column=_COLUMNS.get(family.form)) for family in _ALL}
_BOUND = {limit: family for family in FAMILIES.values() for limit in family.limits}


def _of_limit(kind: LimitKind) -> Family:
    """The figure that a limit bounds, where no family of the list is that figure: 'cache_memory_bytes'."""
    unit = {"bytes": "bytes", "time": "seconds", "factor": "ratio", "percentage": "ratio"}.get(kind.unit, "")
    name = kind.name.partition("_")[2]

    def form(case: Case, figure: float) -> str:
        return kind.format(figure, unit_interval=in_points(case, None))

    is_counted = name in FAMILIES  # flips, and the share of the examples that flipped
    called = f"share of {name.replace('_', ' ')}" if is_counted else ""
    whole = f"{name}_{unit}" if unit else name
    return Family(whole, unit, kind.meaning, form, (kind.name,), kind.direction == "min", called, kind.unit)


def samples(record: Record) -> list[Sample]:
    """Every finite figure, of each variant once, in the order of the list of families and then of the cases."""
    found: dict[tuple[str, Labels], Sample] = {}
    for sample in _all(record):
        if math.isfinite(sample.value):
            found.setdefault((sample.family.name, sample.labels), sample)
    order = {name: number for number, name in enumerate(FAMILIES)}
    return sorted(found.values(), key=lambda each: (order.get(each.family.name, len(order)), each.family.name))


def _all(record: Record) -> Iterator[Sample]:
    """What is measured in its own case before what another case measures of the same variant."""
    repeated = Counter(_variant(case) for case in record.cases)
    for case in record.cases:
        if case.base is None and case.error is None:
            yield from _of_case(record, case, _labels(record, case, case.recipe, repeated), _against_original(case))
    for case in record.cases:
        if case.base is None and case.reference is not None:
            yield from _of_original(record, case, case.reference)
    for case in record.cases:
        if case.base is not None and case.error is None:
            if case.recipe == ORIGINAL and case.variant is not None:
                yield from _of_original(record, case, case.variant)
            yield from _of_case(record, case, _labels(record, case, case.recipe, repeated), _against_base(case))


def _of_original(record: Record, case: Case, side: Measurement) -> Iterator[Sample]:
    for sample in _plain(case, _labels(record, case, ORIGINAL, Counter()), alone(case, side)):
        yield replace(sample, is_of_variant=False)


def _plain(case: Case, labels: Labels, figures: Mapping[str, float | None]) -> Iterator[Sample]:
    for family in FAMILIES.values():
        figure = figures.get(family.name)
        if figure is not None:
            yield Sample(family, labels, case, figure)


def _of_case(record: Record, case: Case, labels: Labels, figures: Mapping[str, float | None]) -> Iterator[Sample]:
    """With the verdict on each figure, and with what limits bound beside the families of the list."""
    verdicts = {verdict.limit.name: verdict for verdict in case.verdicts}
    for sample in _plain(case, labels, figures):
        found = next((verdicts[name] for name in sample.family.limits if name in verdicts), None)
        if found is not None and found.measured is not None:
            yield replace(sample, low=found.low, high=found.high, verdict=found)
        elif sample.family.name == "speedup_ratio" and case.timing is not None:
            low, high = interval_of(speedup_of(case.timing), record.timed_limits)
            is_known = low > 0 and math.isfinite(high)  # too few pairs give no interval
            yield replace(sample, low=low, high=high) if is_known else sample
        else:
            yield sample
    for name, verdict in verdicts.items():
        if name in LIMITS and name not in _BOUND and verdict.measured is not None:
            yield Sample(_of_limit(LIMITS[name]), labels, case, verdict.measured, verdict.low, verdict.high, verdict)


def _variant(case: Case) -> tuple[str, str, str, str, int]:
    return case.model, case.recipe, case.workload, "" if case.base is None else case.base.name, case.machine


def _labels(record: Record, case: Case, recipe: str, repeated: Mapping[tuple[str, str, str, str, int], int]) -> Labels:
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


def alone(case: Case, side: Measurement) -> dict[str, float | None]:
    """What one side of a comparison has by itself."""
    return {
        "memory_bytes": case.memory_bytes(side),
        "process_memory_bytes": side.process_memory.bytes if side.process_memory else None,
        "size_bytes": side.size_bytes,
        "score": side.score,
    }


def _against_original(case: Case) -> dict[str, float | None]:
    figures, coverage = Derived(case), case.coverage
    return {
        **(alone(case, case.variant) if case.variant is not None else {}),
        "latency_seconds": figures.latency_s,
        "p95_latency_seconds": figures.p95_latency_s,
        "load_seconds": figures.load_time_s,
        "throughput_examples": figures.examples_per_second,
        "speedup_ratio": figures.speedup,
        "drop": figures.drop,
        "flips": case.agreement.flips if case.agreement else None,
        "coverage_ratio": coverage.share if coverage and coverage.weight_bytes else None,
    }


def _against_base(case: Case) -> dict[str, float | None]:
    figures = Derived(case)
    return {
        "memory_growth_ratio": figures.memory_growth,
        "size_growth_ratio": figures.size_growth,
        "slowdown_ratio": figures.slowdown,
        "loss": figures.drop,
        "changed_answers": case.agreement.flips if case.agreement else None,
    }
