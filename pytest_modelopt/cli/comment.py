"""`pytest-modelopt comment`: the Markdown of a pull request's comment, made from a record that nobody trusts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from pytest_modelopt.results.record import Record

MARKER = "<!-- pytest-modelopt -->"
"""The first line, by which a workflow finds the comment that it wrote before."""
CLAIMED = (
    "Limits, waivers, figures and revisions are what the run of this pull request reported; the verdicts were made "
    "from them here."
)
"""The last line: whoever writes the code that is measured can write its record, too."""
LIMIT = 65_000
"""Bytes, and so at most that many characters: GitHub takes 65,536."""
_DESCRIPTION = """
Print the Markdown of a comment that a workflow with write access may publish. RECORD may come from the pull request of
a stranger: it is checked against the schema, every verdict is judged again from its figures, and no text of it becomes
HTML, a link or a mention. What the figures and limits are is still the record's word. The first line of the comment is
"<!-- pytest-modelopt -->". The exit status is 0 also where the record is red, and 2 where it is refused.
"""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments of `comment`."""
    parser = commands.add_parser(
        "comment",
        help="print a pull request's comment from a record that nobody trusts",
        description=_DESCRIPTION,
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="record.json of the job that measured")
    parser.add_argument(
        "--title", default="Model budgets", help="the first words of the comment (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the comment; the exit status is 0.

    Raises:
        ValueError: for a record that is refused.
        OSError: if the file cannot be read.
    """
    from pytest_modelopt.cli.shared.judged_records import figures_of
    from pytest_modelopt.results.json import read

    record = read(options.record)
    with figures_of(str(options.record)):
        text = comment(record, options.title)
    tell(text.removesuffix("\n"))
    return 0


def comment(record: Record, title: str = "Model budgets") -> str:
    """The whole comment. Verdicts and findings of the record are not believed, but made anew."""
    from pytest_modelopt.cli.shared.judged_records import judged_again
    from pytest_modelopt.reporting.markdown import render

    room = LIMIT - len(f"{MARKER}\n\n{CLAIMED}\n")
    return f"{MARKER}\n{render(judged_again(record), room, title)}\n{CLAIMED}\n"
