"""`pytest-modelopt schema`: print the JSON Schema of budgets files, for editors, or of records, for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_modelopt
from pytest_modelopt.cli.shared.exit_codes import PASSED

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("schema", help="print the JSON Schema of budgets files, for editors")
    parser.add_argument("--record", action="store_true", help="print that of records (record.json), for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.record:
        from pytest_modelopt.results.record_schema import record_schema

        print(json.dumps(record_schema(), indent=2))
        return PASSED
    schema = Path(pytest_modelopt.__file__).with_name("config") / "schema.json"
    print(schema.read_text(encoding="utf-8"), end="")
    return PASSED
