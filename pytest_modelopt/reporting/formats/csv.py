"""Figures as comma-separated values (RFC 4180), one a row: for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io

from pytest_modelopt.reporting.samples import Sample, samples
from pytest_modelopt.results.record import Record

_LABELS = ("model", "recipe", "workload", "base", "machine", "case")
_COLUMNS = ("started", *_LABELS, "figure", "unit", "value", "low", "high", "limit", "limit_value", "outcome")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula, where a text begins with it."""


def render(record: Record) -> str:
    """A head, and a row for each figure; values in the units of the record, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(record, sample) for sample in samples(record))
    return text.getvalue()


def _row(record: Record, sample: Sample) -> list[str]:
    labels, verdict = dict(sample.labels), sample.verdict
    judged = (
        ("", "", "") if verdict is None else (verdict.limit.name, repr(float(verdict.limit.value)), verdict.outcome)
    )
    figures = ("" if each is None else repr(each) for each in (sample.value, sample.low, sample.high))
    texts = (_text(each) for each in (record.started, *(labels.get(name, "") for name in _LABELS)))
    return [*texts, sample.family.name, sample.family.unit, *figures, _text(judged[0]), *judged[1:]]


def _text(text: str) -> str:
    text = text.replace("\0", "\ufffd")  # which no reader takes, and before Python 3.11 no writer
    return f"'{text}" if text.startswith(_FORMULA) else text
