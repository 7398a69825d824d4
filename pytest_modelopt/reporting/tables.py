"""All tables of a record: variants against their original, and against a base, in one order."""

from __future__ import annotations

from typing import TypeAlias

from pytest_modelopt.reporting.base_table import AgainstBlock, AgainstRow, against_block
from pytest_modelopt.reporting.table import Block, Row, block_of, grouped
from pytest_modelopt.results.record import Record

AnyBlock: TypeAlias = "Block | AgainstBlock"
AnyRow: TypeAlias = "Row | AgainstRow"


def tables(record: Record) -> list[AnyBlock]:
    """One for each model, metric, machine, device and base, in the order of their first cases: see `grouped`."""
    return [
        block_of(record, cases) if cases[0].base is None else against_block(record, cases)
        for cases in grouped(record.cases)
    ]
