"""The columns of a record's tables by name, for tests that look at cells."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.reporting.columns import Column
from pytest_modelopt.reporting.detail_columns import detail_columns
from pytest_modelopt.reporting.figure_columns import columns_of
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.results.record import Record


def table(told: Record, number: int = 0) -> dict[str, tuple[str, ...]]:
    """Of the record's block of that number, all rows."""
    block = blocks(told)[number]
    return _by_name(columns_of(block, block.rows))


def details(told: Record, number: int = 0) -> dict[str, tuple[str, ...]]:
    """What is shown on demand."""
    return _by_name(detail_columns(blocks(told)[number]))


def _by_name(columns: Sequence[Column]) -> dict[str, tuple[str, ...]]:
    return {column.name: column.cells for column in columns}
