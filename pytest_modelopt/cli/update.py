"""`pytest-modelopt update`: set the limits of a budgets file to what a run measured, with headroom."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.arguments import headroom
from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.judged_records import RECORD, figures_of, read_judged
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.config.document import Document
    from pytest_modelopt.config.loader import BudgetsFile
    from pytest_modelopt.editing.limit_updates import Left, Settings, Update
    from pytest_modelopt.results.record import Record

_DESCRIPTION = """\
Sets the limits of a budgets file to what a run measured, and some headroom. A limit is only ever made tighter, unless
--loosen asks to move broken ones. Nothing changes where the run did not decide: inconclusive, not measured or waived
limits, and cases in error, stay as they are, and it is said why. So does a limit that the record judged by another
text: the file has changed since. Of the file only the values change; comments, order, quotes and blanks stay.

Timed limits start from the end of the printed interval that is certain (of `1.5x [1.4, 1.6]` from 1.4x), not from the
estimate, since another run may read that; where others disturbed the timing they stay as they are. Process memory
starts from its highest run, and limits on the population from their 95% bound. A value that several cases share, by
`budget:`, by `defaults:`, by a pattern or by an alias, becomes what the worst of them needs, and only where the record
has them all; it is loosened only where all of them break it.

The headroom is a share of what was measured: of bytes and of time; for reductions of the bytes that are left; for a
score of its errors; for a drop or flips of these. Where answers are counted it is at least one example more, since
less would be none: of 0 flips in 450 examples a limit of 0.23% is made. A variant that is better than its original
gets a drop of 0. Values are rounded to three digits (four of a score), so that the limit still holds.
"""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "update",
        help="set the limits of a budgets file to what a run measured, with headroom",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "record",
        nargs="?",
        type=Path,
        default=RECORD,
        help=f"record.json of an earlier run (default: {RECORD})",
    )
    parser.add_argument("--budgets", type=Path, help="the budgets file (default: the one that pytest would take)")
    parser.add_argument(
        "--headroom", type=headroom, default=0.05, metavar="PERCENT", help="the room beyond what was measured (5%%)"
    )
    parser.add_argument("--loosen", action="store_true", help="move limits that are broken, too")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="CASE",
        help="only limits of these cases, such as digits-vit/int8-dynamic",
    )
    parser.add_argument("--regression", action="store_true", help="limits against a base, too")
    parser.add_argument("--dry-run", action="store_true", help="show the difference and write nothing")
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.editing.limit_updates import foreign_cases, update
    from pytest_modelopt.editing.yaml_positions import replaced, stated_limits

    options.budgets = options.budgets or options.default_budgets
    path: Path = options.budgets
    record = read_judged(options.record)
    budgets = load_budgets(path, relative_to=Path.cwd(), root=options.root)
    document = read_document(path, str(options.budgets))
    with figures_of(str(options.record)):
        done = update(budgets, tuple(stated_limits(budgets, document)), record, _settings(options, budgets))
    texts = {change.place: change.text for change in done.changes}
    after = replaced(document.source, texts)
    if texts and not options.dry_run:
        _write(path, after, document, done, options.root)
    for line in (*_difference(document.source, after, str(options.budgets)), *_format_update(done, options)):
        tell(line)
    for name in foreign_cases(budgets, record):
        tell(f"the record's case {_plain(name)} is not in {options.budgets}")
    return PASSED


def set_limits(budgets: BudgetsFile, root: Path, record: Record, case: str) -> int:
    """Set the limits of one case as `update` does without options; how many were set."""
    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.editing.limit_updates import Settings, update
    from pytest_modelopt.editing.yaml_positions import replaced, stated_limits
    from pytest_modelopt.reporting.timing_conditions import disturbances

    document = read_document(budgets.path, str(budgets.path))
    settings = Settings(only=frozenset([case]), disturbances=disturbances)
    done = update(budgets, tuple(stated_limits(budgets, document)), record, settings)
    if done.changes:
        after = replaced(document.source, {change.place: change.text for change in done.changes})
        _write(budgets.path, after, document, done, root)
    return len(done.changes)


def _settings(options: argparse.Namespace, budgets: BudgetsFile) -> Settings:
    from pytest_modelopt.editing.limit_updates import Settings
    from pytest_modelopt.reporting.timing_conditions import disturbances

    only = frozenset(case for name in options.only for case in _cases_named(name, budgets))
    return Settings(options.headroom, options.loosen, only, options.regression, disturbances)


def _cases_named(name: str, budgets: BudgetsFile) -> list[str]:
    """The cases that the user means, however the recipe is spelled. Raises ValueError."""
    from pytest_modelopt.config.row_names import rows_named
    from pytest_modelopt.limits.spelling import did_you_mean, shown

    model, _, row = name.partition("/")
    found = rows_named(model, row, budgets.cases)
    if not found:
        near = did_you_mean(name, [entry.name for entry in budgets.cases])
        raise ValueError(f"--only: {budgets.path} has no case {shown(name)}{near}")
    return [f"{model.strip()}/{each}" for each in found]


def _write(path: Path, text: str, before: Document, done: Update, root: Path) -> None:
    """Replace the file, once it was seen that it checks and that nothing else changed."""
    from pytest_modelopt.cli.shared.file_replacement import replace_text
    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.editing.yaml_positions import require_only

    def check(new: Path) -> None:
        load_budgets(new, relative_to=new.parent, root=root)
        require_only(before, read_document(new, before.file), {change.place: change.text for change in done.changes})

    replace_text(path, text, before.source, check=check)


def _difference(before: str, after: str, name: str) -> Iterator[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
    return (line.rstrip("\r") for line in lines)


def _format_update(done: Update, options: argparse.Namespace) -> Iterator[str]:
    from pytest_modelopt.results.figures import format_count

    if done.changes:
        yield ""
    for change in done.changes:
        limit = change.limit
        measured = _plain(change.measured)
        shared = f", the worst of {change.cases} cases that share the value" if change.cases > 1 else ""
        yield f"{limit.file}:{limit.line}: {limit.name} {limit.text} -> {change.text}, measured {measured}{shared}"
    if done.left:
        yield ""
        yield "left as they are:"
    yield from (_format_left(each) for each in done.left)
    yield ""
    count = format_count(len(done.changes), "limit")
    yield f"{options.budgets}: {count} set, {done.tight} tight already, {len(done.left)} left as they are"
    if done.rules:
        yield (
            f"{format_count(done.rules, 'limit')} against a base left: each is a rule for changes and no figure of the "
            "model (--regression sets them, too)"
        )
    if options.dry_run:
        yield "--dry-run: nothing was written"


def _format_left(left: Left) -> str:
    limit = left.limit
    return f"  {limit.file}:{limit.line}: {limit.name} {_plain(limit.text)} {_plain(left.why)}"


def _plain(text: str) -> str:
    from pytest_modelopt.reporting.plain_text import plain_line

    return plain_line(text)
