"""`pytest-modelopt report`: judge a record again and tell it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.commands.statuses import PASSED, RED
from pytest_modelopt.record.model import ORIGINAL

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.budgets.file import BudgetsFile
    from pytest_modelopt.commands.arguments import Commands
    from pytest_modelopt.record.model import Record
    from pytest_modelopt.record.verdicts import Limit


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("report", help="judge a record again and tell it; exit status 1 where it is red")
    parser.add_argument("record", type=Path, help="record.json of an earlier run")
    parser.add_argument("--budgets", type=Path, help="judge against this file's limits instead of the recorded ones")
    parser.add_argument("--strict", action="store_true", help="inconclusive counts as broken, too")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of the terminal's table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.commands.refusing import figures_of
    from pytest_modelopt.record.json import read
    from pytest_modelopt.record.run import record_is_red
    from pytest_modelopt.report import markdown, terminal

    with figures_of(options.record):
        record = _judged_again(read(options.record), options.budgets)
        record = replace(record, strict=record.strict or options.strict)
        if options.markdown:
            text = markdown.render(record)
        else:
            lines = terminal.lines(record, shutil.get_terminal_size((200, 24)).columns)
            text = "".join(f"{line}\n" for line, _ in lines)
    print(text, end="")
    return RED if record_is_red(record) else PASSED


def _stated(budgets: BudgetsFile) -> dict[tuple[str, bool], tuple[Limit, ...]]:
    """The limits of each case by its name, and whether they are those against a base."""
    stated = {(f"{model.name}/{ORIGINAL}", True): model.regression for model in budgets.models}
    for case in budgets.cases:
        stated |= {(case.name, False): case.limits, (case.name, True): case.regression}
    return stated


def _judged_again(record: Record, budgets_file: Path | None) -> Record:
    """The record with verdicts made anew, from its own limits or from those of a budgets file."""
    from pytest_modelopt.budgets.file import load_budgets
    from pytest_modelopt.budgets.judge import judge
    from pytest_modelopt.budgets.limits import LIMITS
    from pytest_modelopt.doctor.examine import examine

    cases, timed_limits = record.cases, record.timed_limits
    if budgets_file is not None:
        budgets = load_budgets(budgets_file.resolve(), relative_to=Path.cwd())
        stated = _stated(budgets)
        unknown = [case.name for case in cases if (case.name, case.base is not None) not in stated]
        if unknown:
            raise ValueError(f"{budgets_file} has no limits for these cases of the record: {', '.join(unknown)}")
        inference = {model.name: model.inference for model in budgets.models}
        counted = [limits for (_, is_against), limits in stated.items() if record.against is not None or not is_against]
        timed_limits = sum(LIMITS[limit.name].kind == "timed" for limits in counted for limit in limits)
        cases = tuple(
            replace(case, limits=stated[case.name, case.base is not None], inference=inference[case.model])
            for case in cases
        )
    judged = tuple(judge(case, timed_limits=timed_limits) for case in cases)
    if budgets_file is not None:  # what was found may speak of limits; otherwise it is told as it was found
        judged = tuple(replace(case, findings=examine(case, record.machine_of(case))) for case in judged)
    return replace(record, cases=judged, timed_limits=timed_limits)
