"""`pytest-modelopt validate`: check a budgets file without importing anything that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.commands.statuses import PASSED

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.commands.arguments import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("validate", help="check a budgets file without importing anything that it names")
    parser.add_argument("file", nargs="?", type=Path, default=Path("budgets.yaml"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.budgets.file import load_budgets

    budgets = load_budgets(options.file.resolve(), relative_to=Path.cwd())
    print(f"{options.file}: {len(budgets.models)} models, {len(budgets.cases)} cases")
    for case in budgets.cases:
        limits = ", ".join(f"{limit.name} {limit.text}" for limit in case.limits) or "no limits"
        print(f"  {case.name}: {limits}")
    return PASSED
