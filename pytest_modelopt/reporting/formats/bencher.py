"""Bencher Metric Format: what `bencher run --adapter json` takes.

https://bencher.dev/docs/reference/bencher-metric-format/: benchmark -> measure -> value, with `lower_value` and
`upper_value` where an interval is known.
"""

from __future__ import annotations

import hashlib
import json

from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.results.record import Record

_LONGEST_NAME = 1024


def render(record: Record) -> str:
    """A benchmark for each variant, its figures by slug: 'memory-bytes', 'speedup-ratio'."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for sample in samples(record):
        of = benchmarks.setdefault(_name(sample.name), {})
        of.setdefault(sample.family.name.replace("_", "-"), _metric(sample))
    return json.dumps(benchmarks, indent=1) + "\n"


def _name(name: str) -> str:
    """Of a length that Bencher takes; what is cut off goes on in a digest, so that two names stay two."""
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{name[: _LONGEST_NAME - 17]}-{digest}"


def _metric(sample: Sample) -> dict[str, float]:
    ends = {"lower_value": sample.low, "upper_value": sample.high}
    return {"value": sample.value, **{name: end for name, end in ends.items() if end is not None}}
