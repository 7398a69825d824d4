"""`pytest-modelopt schema`: print the JSON Schema of budgets files, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest_modelopt
from pytest_modelopt.cli.exit_codes import PASSED

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.arguments import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("schema", help="print the JSON Schema of budgets files, for editors")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    del options
    schema = Path(pytest_modelopt.__file__).with_name("config") / "schema.json"
    print(schema.read_text(encoding="utf-8"), end="")
    return PASSED
