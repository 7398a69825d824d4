"""Bencher Metric Format: what `bencher run --adapter json` takes.

https://bencher.dev/docs/reference/bencher-metric-format/: benchmark -> measure -> value, with `lower_value` and
`upper_value` where an interval is known.
"""

from __future__ import annotations

import json

from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.results.record import Record

_LONGEST_NAME = 1024


def render(record: Record) -> str:
    """A benchmark for each variant, its figures by slug: 'memory-bytes', 'speedup-ratio'."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for sample in samples(record):
        of = benchmarks.setdefault(sample.name[:_LONGEST_NAME], {})
        of.setdefault(sample.family.name.replace("_", "-"), _metric(sample))
    return json.dumps(benchmarks, indent=1) + "\n"


def _metric(sample: Sample) -> dict[str, float]:
    ends = {"lower_value": sample.low, "upper_value": sample.high}
    return {"value": sample.value, **{name: end for name, end in ends.items() if end is not None}}
