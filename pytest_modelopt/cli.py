"""`pytest-modelopt`: check a budgets file, list recipes, tell a record again, see what a machine can judge."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt import __version__
from pytest_modelopt.commands import comment, merge

if TYPE_CHECKING:
    from pytest_modelopt.record.model import Record
    from pytest_modelopt.selftest.controls import ControlPlan

PASSED, RED, WRONG_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 where the record is red, or 2 for wrong input."""
    from pytest_modelopt.recipes.registry import register_installed

    options = _parser().parse_args(arguments)
    try:
        register_installed()
        status: int = options.run(options)
    except ValueError as error:  # BudgetsError, RecipeError, RecordError: already in words
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return WRONG_INPUT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-modelopt", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pytest-modelopt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    validate = commands.add_parser("validate", help="check a budgets file without importing anything that it names")
    validate.add_argument("file", nargs="?", type=Path, default=Path("budgets.yaml"))
    validate.set_defaults(run=_validate)
    recipes = commands.add_parser(
        "recipes", help="list the recipes: what each does and needs, and whether it runs here"
    )
    recipes.add_argument("names", nargs="*", metavar="NAME", help="only these")
    recipes.set_defaults(run=_recipes)
    schema = commands.add_parser("schema", help="print the JSON Schema of budgets files, for editors")
    schema.set_defaults(run=_schema)
    report = commands.add_parser("report", help="judge a record again and tell it; exit status 1 where it is red")
    report.add_argument("record", type=Path, help="record.json of an earlier run")
    report.add_argument("--budgets", type=Path, help="judge against this file's limits instead of the recorded ones")
    report.add_argument("--strict", action="store_true", help="inconclusive counts as broken, too")
    report.add_argument("--markdown", action="store_true", help="print Markdown instead of the terminal's table")
    report.set_defaults(run=_report)
    selftest = commands.add_parser(
        "selftest",
        help="see whether the gate can pass and can fail on a model (the original against itself, batch norms folded, "
        "90%% of the weights at zero), and which timed limits this machine can judge (identical and slowed copies); "
        "exit status 1 where a control is wrong or the limit cannot be judged",
    )
    selftest.add_argument("model", nargs="?", help="a model of the budgets file (default: its first one)")
    selftest.add_argument("--budgets", type=Path, help="default: budgets.yaml, or else a model of our own")
    selftest.add_argument("--repeats", type=_count, default=20, metavar="K", help="comparisons of each kind (20)")
    selftest.add_argument(
        "--limit", type=_share, default=0.1, metavar="PERCENT", help="at most this much slower (10%%)"
    )
    selftest.add_argument(
        "--slowdown", type=_share, default=0.15, metavar="PERCENT", help="of the slowed copies (15%%)"
    )
    selftest.add_argument("--time-limit", type=_seconds, default=20.0, metavar="TIME", help="per comparison (20 s)")
    selftest.set_defaults(run=_selftest)
    merge.add_parser(commands)
    comment.add_parser(commands)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> float:
    from pytest_modelopt.budgets.units import UnitError, parse_percentage

    try:
        share = parse_percentage(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if share <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return share


def _seconds(text: str) -> float:
    from pytest_modelopt.budgets.units import UnitError, parse_time

    try:
        return parse_time(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _validate(options: argparse.Namespace) -> int:
    from pytest_modelopt.budgets.file import load_budgets

    budgets = load_budgets(options.file.resolve(), relative_to=Path.cwd())
    print(f"{options.file}: {len(budgets.models)} models, {len(budgets.cases)} cases")
    for case in budgets.cases:
        limits = ", ".join(f"{limit.name} {limit.text}" for limit in case.limits) or "no limits"
        print(f"  {case.name}: {limits}")
    return PASSED


def _recipes(options: argparse.Namespace) -> int:
    from pytest_modelopt.recipes.expression import recipe_class
    from pytest_modelopt.recipes.listing import listing
    from pytest_modelopt.recipes.registry import RECIPES

    for line in listing([recipe_class(name) for name in options.names] or RECIPES.values()):
        print(line)
    return PASSED


def _schema(options: argparse.Namespace) -> int:
    del options
    print(Path(__file__).with_name("budgets").joinpath("schema.json").read_text(encoding="utf-8"), end="")
    return PASSED


def _report(options: argparse.Namespace) -> int:
    from pytest_modelopt.record.json import read
    from pytest_modelopt.record.outcome import record_is_red
    from pytest_modelopt.report import markdown, terminal

    record = _judged_again(read(options.record), options.budgets)
    record = replace(record, strict=record.strict or options.strict)
    if options.markdown:
        print(markdown.render(record), end="")
    else:
        for text, _ in terminal.lines(record, shutil.get_terminal_size((200, 24)).columns):
            print(text)
    return RED if record_is_red(record) else PASSED


def _judged_again(record: Record, budgets_file: Path | None) -> Record:
    """The record with verdicts made anew, from its own limits or from those of a budgets file."""
    from pytest_modelopt.budgets.file import load_budgets
    from pytest_modelopt.budgets.judge import judge
    from pytest_modelopt.budgets.limits import LIMITS
    from pytest_modelopt.doctor.examine import examine

    cases, timed_limits = record.cases, record.timed_limits
    if budgets_file is not None:
        entries = load_budgets(budgets_file.resolve(), relative_to=Path.cwd()).cases
        stated = {entry.name: entry for entry in entries}
        timed_limits = sum(LIMITS[limit.name].kind == "timed" for entry in entries for limit in entry.limits)
        unknown = [case.name for case in cases if case.name not in stated]
        if unknown:
            raise ValueError(f"{budgets_file} has no limits for these cases of the record: {', '.join(unknown)}")
        cases = tuple(
            replace(case, limits=stated[case.name].limits, inference=stated[case.name].model.inference)
            for case in cases
        )
    judged = tuple(judge(case, timed_limits=timed_limits) for case in cases)
    if budgets_file is not None:  # what was found may speak of limits; otherwise it is told as it was found
        judged = tuple(replace(case, findings=examine(case, record.environment)) for case in judged)
    return replace(record, cases=judged, timed_limits=timed_limits)


def _selftest(options: argparse.Namespace) -> int:
    import tempfile

    from pytest_modelopt.measure.process import WorkerFailed
    from pytest_modelopt.measure.referee import Listener
    from pytest_modelopt.selftest.controls import run_controls
    from pytest_modelopt.selftest.run import Plan, run
    from pytest_modelopt.selftest.tell import control_lines, lines

    if options.slowdown <= options.limit:
        raise ValueError("--slowdown must be larger than --limit: a slowed copy has to break the limit")
    control_plan = _control_plan(options)
    variant, name = control_plan.variant, control_plan.name
    plan = Plan(variant, name, options.repeats, options.slowdown, options.limit, options.time_limit)

    def show(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    class Shown(Listener):
        def step(self, case: str, text: str) -> None:
            show(f"{case}: {text}")

        def beat(self, detail: str = "") -> None:
            del detail

        def waiting(self, seconds: float) -> None:
            show(f"waiting for another timing on this machine, {seconds:.0f} s so far")

    try:
        controls = run_controls(control_plan, Shown())
        show("")
        for line in control_lines(name, controls):  # at once: the trials take minutes
            print(line, flush=True)
        with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
            result = run(
                plan,
                controls,
                Path(folder),
                lambda kind, number: show(f"{kind} copy {number} of {plan.repeats}"),
                Shown(),
            )
    except WorkerFailed as failed:
        raise ValueError(f"{name}: {failed.message}" + (f"\n{failed.output}" if failed.output else "")) from None
    finally:
        show("")
    print()
    for line in lines(result):
        print(line)
    return PASSED if result.is_good else RED


def _control_plan(options: argparse.Namespace) -> ControlPlan:
    """For a model of the budgets file, with what its cases demand; for our own where no file is there or asked for."""
    from pytest_modelopt.budgets.file import load_budgets
    from pytest_modelopt.budgets.spelling import did_you_mean
    from pytest_modelopt.measure.reference import reference_variant
    from pytest_modelopt.selftest.controls import ControlPlan, accuracy_limits
    from pytest_modelopt.session import variant_of

    path, name = options.budgets or Path("budgets.yaml"), options.model
    if options.budgets is None and name is None and not path.exists():
        ours = "a small network of our own (there is no budgets.yaml here)"
        return ControlPlan(reference_variant(), ours, (), options.limit, options.time_limit, "set")
    budgets = load_budgets(path.resolve(), relative_to=Path.cwd())
    models = {model.name: model for model in budgets.models}
    if name is not None and name not in models:
        raise ValueError(f"{path} has no model {name!r}{did_you_mean(name, list(models))}")
    model = models[name] if name is not None else budgets.models[0]
    return ControlPlan(
        variant_of(budgets, model, None, Path.cwd()),
        f"{model.name} ({path})",
        accuracy_limits({case.name: case.limits for case in budgets.cases if case.model == model}),
        options.limit,
        options.time_limit,
        model.inference,
    )


if __name__ == "__main__":
    sys.exit(main())
