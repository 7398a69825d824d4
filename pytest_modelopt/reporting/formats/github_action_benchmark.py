"""Figures that are better when they are smaller, for github-action-benchmark's tool `customSmallerIsBetter`.

https://github.com/benchmark-action/github-action-benchmark: a list of entries with name, unit and value, and further
texts, range and extra. The action takes figures of one direction at a time; `github_action_benchmark_bigger` has the
others.
"""

from __future__ import annotations

import json

from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.results.record import Record


def render(record: Record) -> str:
    return entries(record, bigger=False)


def entries(record: Record, *, bigger: bool) -> str:
    """The entries of all figures of one direction."""
    found = [each for each in samples(record) if each.family.is_better_when_bigger(each.case) == bigger]
    return json.dumps([_entry(sample) for sample in found], indent=1) + "\n"


def _entry(sample: Sample) -> dict[str, str | float]:
    entry: dict[str, str | float] = {
        "name": f"{sample.name}: {sample.family.name}",
        "unit": sample.family.unit or "1",
        "value": sample.value,
        "extra": sample.text,
    }
    if sample.low is not None and sample.high is not None:
        entry["range"] = f"{sample.low!r} to {sample.high!r}"
    return entry
