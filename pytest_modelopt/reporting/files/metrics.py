"""Figures of a record as OpenMetrics text, which GitLab compares between branches and Prometheus reads.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md: one family after the other, each with
its TYPE, its UNIT (a suffix of its name) and its HELP, and '# EOF' at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pytest_modelopt.reporting.samples import samples
from pytest_modelopt.results.record import Record

NAME = "metrics.txt"


def render(record: Record) -> str:
    """Gauges for every finite figure, each with the labels of its sample."""
    return "".join(f"{line}\n" for line in _lines(record)) + "# EOF\n"


def _lines(record: Record) -> Iterator[str]:
    for name, found in groupby(samples(record), key=lambda sample: f"modelopt_{sample.family.name}"):
        of = list(found)
        family = of[0].family
        yield f"# TYPE {name} gauge"
        if family.unit:
            yield f"# UNIT {name} {family.unit}"
        yield f"# HELP {name} {family.help}"
        for sample in of:
            listed = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels)
            yield f"{name}{{{listed}}} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
