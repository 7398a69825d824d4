"""The record as JSON: what `report`, `merge`, `comment`, `update` and `--modelopt-baseline` read."""

from __future__ import annotations

from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.record import Record

NAME = "record.json"


def render(record: Record) -> str:
    """The JSON text of the record."""
    return record_json.dumps(record)
