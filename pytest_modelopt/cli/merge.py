"""`pytest-modelopt merge`: the records of several CI jobs become one record, one table and one exit status."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DESCRIPTION = """
Put the records of several CI jobs together: shards of one suite, or the same suite on several machines. A case that
different machines measured is kept once for each; of a case that the same machine measured twice, as when a job was run
again, the record that was started later counts, and a note says so. The exit status is 1 where a case is red, where a
case that any job collected was run by none of them, and where a job was interrupted; it is 2 for records that do not
belong together (other revisions, bases, versions or budgets).
"""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments of `merge`."""
    parser = commands.add_parser(
        "merge",
        help="put the records of several CI jobs together; exit status 1 where the whole is red",
        description=_DESCRIPTION,
    )
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="record.json of each job")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the merged record to this file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of the terminal's table")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the details of figures and notes, too")
    parser.add_argument("--strict", action="store_true", help="inconclusive counts as broken, too")
    parser.add_argument(
        "--expect", type=int, metavar="N", help="the number of jobs: fewer or more records are an error"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Merge and tell; the exit status is 0, or 1 where the merged record is red.

    Raises:
        ValueError: for records that cannot be read or do not belong together, or that are not as many as expected.
    """
    from pytest_modelopt.cli.shared.judged_records import figures_of, judged_again, read_judged
    from pytest_modelopt.reporting import markdown, terminal
    from pytest_modelopt.results.json import write
    from pytest_modelopt.results.merging import merge
    from pytest_modelopt.results.run_outcome import record_is_red

    paths: list[Path] = options.records
    if options.expect is not None and len(paths) != options.expect:
        given = ", ".join(map(str, paths))
        raise ValueError(
            f"--expect {options.expect}: {len(paths)} {'was' if len(paths) == 1 else 'were'} given: {given}; name "
            "the records of all jobs"
        )
    merged = merge([(str(path), read_judged(path)) for path in paths])
    with figures_of("the merged record"):
        record = judged_again(replace(merged, strict=merged.strict or options.strict))
    if options.output is not None:
        write(record, options.output)
    if options.markdown:
        tell(markdown.render(record).removesuffix("\n"))
    else:
        for text, _ in terminal.lines(record, shutil.get_terminal_size((200, 24)).columns, verbose=options.verbose):
            tell(text)
    return int(record_is_red(record))
