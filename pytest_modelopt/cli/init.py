"""`pytest-modelopt init`: measure a model with some recipes, and write a first budgets file that holds."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli import init_ci
from pytest_modelopt.cli.shared.arguments import reference, seconds
from pytest_modelopt.cli.shared.exit_codes import PASSED
from pytest_modelopt.cli.shared.model_options import REFERENCE, add_model_options, loaded, model_keys, name_of
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    from pytest_modelopt.cli.init_trials import Choice, Tried
    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.config.document import Document
    from pytest_modelopt.config.loader import BudgetsFile, Defaults
    from pytest_modelopt.editing.first_budgets import Head, Outcome
    from pytest_modelopt.results.record import Record

_DESCRIPTION = """\
Measures a model with recipes, as the gate does, and writes a first budgets file: limits that hold now, with comments
that say what was measured where. --add puts the model into a file that there is, and changes nothing else of it.

A recipe stays that pays for certain: 1.1 times as fast by the low end of the interval, or a tenth less memory or size,
at no more than twice the time and five points of score. The others stand there as comments, each with its reason.
Limits leave room: 5% of memory and size (15% of the memory of other runtimes), half of the certain gain in speed, and
three examples in the score; the bound on the drop and the floor of the score say the same.

It tries the files below dist that a runtime can load (.onnx, .xml, .tflite, .pte,
.pt2, .pt) as candidates, then the recipes
of the project, and of ours those that run here and that change a layer of the model: some minutes, and --within at the
most.
"""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "init",
        help="measure a model and write a first budgets file, or add the model to one",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "factory", nargs="?", type=reference, metavar=REFERENCE, help="the function that returns the model"
    )
    add_model_options(parser)
    parser.add_argument("--add", action="store_true", help="add the model to a budgets file that there is")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the file that is written (default: the one that pytest would take)"
    )
    parser.add_argument(
        "--time-limit", type=seconds, metavar="TIME", help="the longest that timing may take, per comparison (20 s)"
    )
    parser.add_argument(
        "--within", type=seconds, default=600.0, metavar="TIME", help="no recipe is begun after that (10 min)"
    )
    parser.set_defaults(run=run, in_project=True)
    init_ci.add_argument(parser)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.editing.first_budgets import format_untried, why_no_answers, why_not

    if options.factory is None or options.data is None:
        raise ValueError(
            f"init needs {REFERENCE} of the model and --data {REFERENCE} (or --ci alone); where there are no labels, "
            "let the data be inputs alone, and say --metric agreement"
        )
    output: Path = options.output or options.default_budgets
    before = existing_file(output, options.root) if options.add else None
    if before is None:
        require_that_it_can_be_written(output)
    name = options.name if options.name is not None else name_of(options.factory)
    choice = _choice(options, output, before)
    head = _head(options, name)
    budgets = _provisional(output, before, head, choice, options.root)
    tried = _tried(options, budgets, name)
    record, outcomes = tried.record, tried.outcomes
    told = [(each, why_not(each, record.timed_limits)) for each in outcomes]
    lines = [f"{each.spelling}: {_result(each, why)}" for each, why in told if not each.untried]
    untried = [(each.spelling, each.untried) for each in outcomes if each.untried]
    lines += format_untried([*untried, *choice.found.left_out, *choice.impossible])
    if all(why for _, why in told):
        what = "no recipe and no file is" if choice.found.files else "no recipe is"
        raise ValueError("\n".join([f"{what} worth a budget here, so nothing was written:", *lines]))
    write_first(output, before, replace(head, comments=comments_of(record, is_added=options.add)), tried, options.root)
    for line in lines:
        tell(line)
    none = why_no_answers(outcomes)
    if none:
        tell(f"no limits on the answers: {none}")
    tell(
        f"{output}: {f'{name} was added' if options.add else 'written'}, with {_counted(told)}: check it by "
        "`pytest --modelopt`"
    )
    return PASSED


def _counted(told: Sequence[tuple[Outcome, str]]) -> str:
    """'1 of 2 recipes and 1 of 1 files'."""
    parts = []
    for what, is_file in (("recipes", False), ("files", True)):
        of = [why for each, why in told if bool(each.file) == is_file]
        if of or not is_file:
            parts.append(f"{of.count('')} of {len(of)} {what}")
    return " and ".join(parts)


def _result(outcome: Outcome, why_not: str) -> str:
    if not why_not:
        return outcome.told
    is_measured = outcome.case is not None and outcome.case.error is None
    return f"left out: {why_not}{f' ({outcome.told})' if is_measured else ''}"


# --- the file as it is -----------------------------------------------------------------------------------------------


def require_that_it_can_be_written(output: Path) -> None:
    """Before minutes are spent: that there is no file, and that there can be one. Raises ValueError."""
    import tempfile

    _refuse_to_overwrite(output)
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{output} cannot be written: {folder}: {error.strerror}: name another place with --output"
        ) from None


def _refuse_to_overwrite(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ValueError(
            f"{output} exists, and init overwrites nothing: add this model to it by --add, or name another file with "
            "--output"
        )


def existing_file(output: Path, root: Path) -> Document:
    """The file that takes one more model. Raises ValueError where it does not check, or takes none."""
    import os

    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.editing.model_insertion import opening

    if not output.exists():
        raise ValueError(f"there is no {output} to add to: leave out --add, and it is written")
    load_budgets(output, relative_to=Path.cwd(), root=root)
    document = read_document(output, str(output))
    opening(document)
    for path in (output.resolve(), output.resolve().parent):
        if not os.access(path, os.W_OK):
            raise ValueError(
                f"{output} cannot be changed: {path} cannot be written: give yourself the right to, or name another "
                "file with --output"
            )
    return document


def _choice(options: argparse.Namespace, output: Path, before: Document | None) -> Choice:
    from pytest_modelopt.cli.init_files import find
    from pytest_modelopt.cli.init_trials import Choice, canonical_once, choose

    found = find(output.parent)
    if options.recipe:
        return Choice(canonical_once(options.recipe), found=found)
    device = _defaults(output, before, options.root).device.partition(":")[0]
    return replace(choose(device, has_calibration=bool(options.calibration)), found=found)


def _defaults(output: Path, before: Document | None, root: Path) -> Defaults:
    from pytest_modelopt.config.loader import Defaults, load_budgets

    return Defaults() if before is None else load_budgets(output, relative_to=Path.cwd(), root=root).defaults


# --- the file as it becomes ------------------------------------------------------------------------------------------


def _head(options: argparse.Namespace, name: str) -> Head:
    from pytest_modelopt.editing.first_budgets import Head

    given = options.time_limit is not None and not options.add
    defaults = (("time_limit", f"{options.time_limit:g} s"),) if given else ()
    return Head((), name, model_keys(options, options.factory), defaults)


def comments_of(record: Record, *, is_added: bool, command: str = "init") -> tuple[str, ...]:
    from pytest_modelopt.editing.first_budgets import EXAMPLES_OF_ROOM
    from pytest_modelopt.reporting.summary import machine

    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    on = machine(record).partition("; ")[2]
    how = "Added" if is_added else "Written"
    examples = max((case.reference.examples for case in record.cases if case.reference is not None), default=0)
    return (
        f"{how} by `pytest-modelopt {command}` on {today}, of what was measured on {on}.",
        "Limits leave room: 5% of memory and size (15% of the memory of fresh processes), half of the gain in speed "
        f"that is certain, and what {EXAMPLES_OF_ROOM} of the {examples} examples come to in the score. State what you "
        "need: `pytest --modelopt` checks it, and `pytest-modelopt update` tightens it to what a run measured.",
    )


def _provisional(output: Path, before: Document | None, head: Head, choice: Choice, root: Path) -> BudgetsFile:
    """The file with the model and no limits, as if it stood there: seen to check before minutes are spent.

    Raises:
        ValueError: with what is wrong with the name, the metric or the recipes.
    """
    from pytest_modelopt.editing.first_budgets import Outcome

    if before is not None and head.name in before.data["models"]:
        line = before.line(("models", head.name))
        raise ValueError(f"{output}:{line}: there is a model `{head.name}` already: choose another one with --name")
    files = [Outcome(file, None, file=path) for file, path in choice.found.files]
    outcomes = (*files, *(Outcome(str(recipe), None) for recipe in choice.recipes))
    return loaded(first_text(before, head, outcomes, 0), output, root)


def first_text(before: Document | None, head: Head, outcomes: tuple[Outcome, ...], timed_limits: int) -> str:
    from pytest_modelopt.editing.first_budgets import comment_lines, model_lines, render
    from pytest_modelopt.editing.model_insertion import added, opening

    if before is None:
        return render(head, outcomes, timed_limits)
    place = opening(before)
    lines = model_lines(head, outcomes, timed_limits, indent=place.indent)
    return added(before.source, place, [*comment_lines(head.comments, place.indent), *lines])


def _tried(options: argparse.Namespace, budgets: BudgetsFile, name: str) -> Tried:
    from pytest_modelopt.cli.init_trials import try_recipes
    from pytest_modelopt.cli.shared.progress_line import Shown, show
    from pytest_modelopt.plugin.options import Options
    from pytest_modelopt.plugin.session import Session
    from pytest_modelopt.results.figures import format_time

    entries = [entry for entry in budgets.cases if entry.model.name == name]
    entries.sort(key=lambda entry: entry.expression is not None)
    step_limit_s = min(options.within, budgets.defaults.step_limit_s)
    settings = Options(budgets.path, False, None, False, options.time_limit, step_limit_s, bisect_s=0.0)
    session = Session(settings, budgets, Path.cwd(), Shown(), timed_limits=len(entries))
    try:
        return try_recipes(session, entries, within_s=options.within, told_within=format_time(options.within))
    finally:
        session.close()
        show("")


def write_first(output: Path, before: Document | None, head: Head, tried: Tried, root: Path) -> None:
    """Write the file, or add the model to what it was before, once it was seen that what was measured keeps it."""
    from pytest_modelopt.cli.shared.file_replacement import replace_text
    from pytest_modelopt.config.document import read_document
    from pytest_modelopt.editing.model_insertion import require_only_added
    from pytest_modelopt.results.files.atomic_files import write_text

    text = first_text(before, head, tried.outcomes, tried.record.timed_limits)

    def check(new: Path) -> None:
        require_that_it_holds(new, root, head.name, tried.record)
        if before is None:
            _refuse_to_overwrite(output)  # measuring took minutes
        else:
            require_only_added(before, read_document(new, before.file), head.name)

    if before is None:
        write_text(text, output, check=check)
    else:
        replace_text(output, text, before.source, check=check)


def require_that_it_holds(new: Path, root: Path, model: str, record: Record) -> None:
    """That the file checks, and that what was measured keeps it. Raises ValueError."""
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.judging.judge import judge
    from pytest_modelopt.reporting.messages.verdicts import format_verdict

    cases = {case.recipe: case for case in record.cases}
    for entry in load_budgets(new, relative_to=new.parent, root=root).cases:
        if entry.model.name != model or entry.recipe not in cases:  # `defaults:` has it, and there was no time
            continue
        case = judge(replace(cases[entry.recipe], limits=entry.limits), timed_limits=record.timed_limits)
        for verdict in case.verdicts:
            if verdict.outcome != "pass":
                told = format_verdict(case, verdict)
                raise ValueError(
                    f"a limit that was made would not hold, so nothing was written: {told}: run init again, on a "
                    "quieter machine"
                )
