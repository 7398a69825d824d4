"""`pytest-modelopt validate`: check a budgets file without importing anything that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import PASSED, RED
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.results.verdicts import Limit


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "validate",
        help="check a budgets file without importing anything that it names; exit status 1 where a run is certain to "
        "be red",
    )
    parser.add_argument("file", nargs="?", type=Path, help="the budgets file (default: the one that pytest would take)")
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.cli.shared.certain_failures import causes
    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.reporting.plain_text import plain_line

    path: Path = options.file or options.default_budgets
    budgets = load_budgets(path.resolve(), relative_to=Path.cwd(), root=options.root)
    tell(f"{path}: {len(budgets.models)} models, {len(budgets.cases)} cases")
    for case in budgets.cases:
        there = "".join(f"; on the target {at.target.name}: {_listed(at.limits)}" for at in case.at_targets)
        tell(f"  {case.name}: {_listed(case.everywhere) or 'no limits'}{there}{_against_base(case.regression)}")
    for original in budgets.originals:
        if original.regression and original not in budgets.cases:
            tell(f"  {original.name}: no limits{_against_base(original.regression)}")
    for each in budgets.waivers:
        owner = f", {each.waiver.owner}" if each.waiver.owner else ""
        ceiling = f" up to {each.waiver.ceiling_text}" if each.waiver.ceiling is not None else ""
        tell(f"  waived until {each.waiver.until}{owner}: {each.case}, {each.limit}{ceiling}: {each.waiver.reason}")
    found = causes(budgets, read_document(budgets.path, budgets.file), options.root)
    for cause in found:
        tell(f"{budgets.file}:{cause.line}: {plain_line(cause.sentence)}")
    return RED if any(cause.is_certain for cause in found) else PASSED


def _listed(limits: Sequence[Limit]) -> str:
    return ", ".join(f"{limit.name} {limit.text}" for limit in limits)


def _against_base(limits: Sequence[Limit]) -> str:
    return f"; against a base: {_listed(limits)}" if limits else ""
