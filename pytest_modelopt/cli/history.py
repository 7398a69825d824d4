"""`pytest-modelopt history`: each figure over the records of several runs, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands

_DESCRIPTION = """
Draw each figure of each variant over the records of several runs, in the order in which these were started, with the
limits as each record states them. Figures of time belong to their machine: the page names it beside each of them.
"""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "history", help="draw each figure over the records of several runs", description=_DESCRIPTION
    )
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="record.json of each run")
    parser.add_argument("--html", type=Path, required=True, metavar="FILE", help="write the page to this file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page; the exit status is 0, whatever the records say."""
    from pytest_modelopt.cli.shared.judged_records import figures_of, read_judged
    from pytest_modelopt.reporting import page
    from pytest_modelopt.results.figures import format_count
    from pytest_modelopt.results.files.atomic_files import write_text

    records = [read_judged(path) for path in options.records]
    with figures_of("the records"):
        write_text(page.render_history(records), options.html)
    tell(f"wrote {options.html}: {format_count(len(records), 'record')}")
    return PASSED
