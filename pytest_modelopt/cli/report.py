"""`pytest-modelopt report`: judge a record again and tell it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import PASSED, RED
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.reporting import formats

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.config.loader import BudgetsFile
    from pytest_modelopt.results.case import Case
    from pytest_modelopt.results.record import Record
    from pytest_modelopt.results.verdicts import Limit


_EXPERIMENT = "pytest-modelopt"


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("report", help="judge a record again and tell it; exit status 1 where it is red")
    parser.add_argument("record", type=Path, help="record.json of an earlier run")
    parser.add_argument("--budgets", type=Path, help="judge against this file's limits instead of the recorded ones")
    parser.add_argument("--strict", action="store_true", help="inconclusive counts as broken, too")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the details of figures and notes, too")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--markdown", action="store_true", help="print Markdown instead of the terminal's table")
    shown.add_argument("--format", choices=formats.names(), help="print its figures in a form that other programs read")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one HTML page, too")
    parser.add_argument(
        "--mlflow",
        nargs="?",
        const=_EXPERIMENT,
        metavar="EXPERIMENT",
        help=f"write the figures, tags and the page to MLflow, too (default: the experiment {_EXPERIMENT})",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.cli.shared.judged_records import figures_of, read_judged
    from pytest_modelopt.reporting import markdown, mlflow_runs, page, terminal
    from pytest_modelopt.results.files.atomic_files import write_text
    from pytest_modelopt.results.run_outcome import record_is_red

    record = read_judged(options.record)
    with figures_of(str(options.record)):
        if options.budgets is not None:
            record = _with_limits_of(options.budgets, options.root, record)
        record = replace(record, strict=record.strict or options.strict)
        if options.html is not None:
            write_text(page.render(record), options.html)
        if options.mlflow is not None:
            told = f"MLflow: run {mlflow_runs.log(record, options.mlflow)} in the experiment {options.mlflow}"
            print(told, file=sys.stderr)
        if options.format is not None:
            text = formats.render(options.format, record)
        elif options.markdown:
            text = markdown.render(record)
        else:
            lines = terminal.lines(record, shutil.get_terminal_size((200, 24)).columns, verbose=options.verbose)
            text = "".join(f"{line}\n" for line, _ in lines)
    tell(text.removesuffix("\n"))
    return RED if record_is_red(record) else PASSED


def _stated(budgets: BudgetsFile) -> dict[tuple[str, bool], tuple[Limit, ...]]:
    """The limits of each case by its name, and whether they are those against a base."""
    stated = {(entry.name, True): entry.regression for entry in budgets.originals}
    for case in budgets.cases:
        stated |= {(case.name, False): case.limits, (case.name, True): case.regression}
    return stated


def _with_limits_of(budgets_file: Path, root: Path, record: Record) -> Record:
    """The record judged by the limits of a budgets file."""
    from pytest_modelopt.cli.shared.judged_records import judged_again
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.limits.catalogue import LIMITS
    from pytest_modelopt.results.target import fingerprint_of

    budgets = load_budgets(budgets_file.resolve(), relative_to=Path.cwd(), root=root)
    stated = _stated(budgets)
    unknown = [case.name for case in record.cases if (case.name, case.base is not None) not in stated]
    if unknown:
        raise ValueError(
            f"{budgets_file} has no limits for these cases of the record: {', '.join(unknown)}; name the file that "
            "it was made with"
        )
    inference = {model.name: model.inference for model in budgets.models}
    entries = {entry.name: entry for entry in budgets.cases}

    def limits_of(case: Case) -> tuple[Limit, ...]:
        machine = record.machine_of(case)
        if case.base is not None or machine is None or case.name not in entries:
            return stated[case.name, case.base is not None]
        return entries[case.name].limits_on(fingerprint_of(machine))

    cases = tuple(replace(case, limits=limits_of(case), inference=inference[case.model]) for case in record.cases)
    counted = [entry.of_all_machines for entry in budgets.cases]
    if record.against is not None:
        counted += [limits for (_, is_against), limits in stated.items() if is_against]
    timed_limits = sum(LIMITS[limit.name].is_timed for limits in counted for limit in limits)
    return judged_again(replace(record, cases=cases, timed_limits=timed_limits, targets=budgets.targets))
