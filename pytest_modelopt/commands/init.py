"""`pytest-modelopt init`: measure a model with some recipes, and write a first budgets file that holds."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.commands import init_ci
from pytest_modelopt.commands.arguments import reference, seconds
from pytest_modelopt.commands.statuses import PASSED
from pytest_modelopt.commands.telling import tell

if TYPE_CHECKING:
    from pytest_modelopt.budgets.first import Head, Outcome
    from pytest_modelopt.commands.arguments import Commands
    from pytest_modelopt.measure.variant import Variant
    from pytest_modelopt.recipes.base import Recipe
    from pytest_modelopt.record.model import Record

_DESCRIPTION = """\
Measures a model with some recipes, as the gate does, and writes a first budgets file: limits that hold now, with
comments that say what was measured where. The headroom is 5% (15% for the memory of other runtimes); of a gain in speed
half is demanded, and nothing where others disturbed the timing. What did not pay (an error, neither smaller nor faster,
a score that dropped by more than 5 points) stands there as a comment. It takes minutes, and an existing file is never
overwritten.
"""

_TRIED = (
    "int8-dynamic",
    "int8-static",
    "int8-weight-only",
    "bf16",
    "fold-batchnorm",
    "onnxruntime",
    "onnxruntime-int8-dynamic",
    "onnxruntime-int8-static",
)
"""Without `--recipe`: those of them that run here, with what the user has given. None of them needs a parameter."""
_REFERENCE = "PACKAGE.MODULE:FUNCTION"
_SAYS_NOTHING = ("load", "make", "build", "create", "get", "model", "factory")
"""Words of a factory's name that name no model."""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "init",
        help="measure a model and write a first budgets file",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "factory", nargs="?", type=reference, metavar=_REFERENCE, help="the function that returns the model"
    )
    functions = {
        "--data": "returns the examples to score on",
        "--calibration": "returns examples for recipes to learn from",
        "--example-inputs": "returns the inputs of the timed call",
    }
    for option, meaning in functions.items():
        parser.add_argument(option, type=reference, metavar=_REFERENCE, help=f"the function that {meaning}")
    parser.add_argument("--metric", default="accuracy", help="what scores the answers (accuracy)")
    parser.add_argument("--name", help="of the model (default: from the factory's name)")
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="EXPR",
        help="to try, such as 'prune-structured(ratio=0.5) + int8-dynamic'; may be repeated (default: a few that run "
        "here)",
    )
    parser.add_argument("--output", type=Path, default=Path("budgets.yaml"), help="default: budgets.yaml")
    parser.add_argument("--time-limit", type=seconds, default=20.0, metavar="TIME", help="per comparison (20 s)")
    parser.set_defaults(run=run, in_project=True)
    init_ci.add_argument(parser)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.budgets.first import render, why_not
    from pytest_modelopt.recipes.expression import parse
    from pytest_modelopt.record.atomic import write_text

    if options.factory is None or options.data is None:
        raise ValueError(f"init needs {_REFERENCE} of the model and --data {_REFERENCE} (or --ci alone)")
    _refuse_to_overwrite(options.output)
    _require_that_it_can_be_written(options.output)
    wanted = options.recipe or _recipes_that_run(bool(options.calibration))
    recipes = list(dict.fromkeys(parse(text) for text in wanted))
    name = options.name if options.name is not None else _name_of(options.factory)
    _require_that_it_can_be_stated(options, name, recipes)
    record = _measured(options, name, recipes)
    outcomes = _outcomes(record, recipes)
    timed_limits = record.timed_limits
    left = [f"{each.spelling}: {why}" for each in outcomes if (why := why_not(each, timed_limits))]
    if len(left) == len(outcomes):
        raise ValueError("no recipe is worth a budget here, so nothing was written:\n" + "\n".join(left))
    text = render(_head(options, name, record), outcomes, timed_limits)

    def check(new: Path) -> None:
        _require_that_it_holds(new, record)
        _refuse_to_overwrite(options.output)  # measuring took minutes

    write_text(text, options.output, check=check)
    for each in outcomes:
        tell(f"{each.spelling}: {why_not(each, timed_limits) or each.told}")
    tell(f"{options.output}: written, with {len(outcomes) - len(left)} of {len(outcomes)} recipes")
    return PASSED


def _refuse_to_overwrite(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise ValueError(f"{output} exists, and init overwrites nothing: name another file with --output")


def _require_that_it_can_be_written(output: Path) -> None:
    """Before minutes are spent; what is not there yet is made at the end. Raises ValueError."""
    import tempfile

    folder = next(parent for parent in output.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {folder}: {error.strerror}") from None


def _recipes_that_run(has_calibration: bool) -> list[str]:
    from pytest_modelopt.recipes.registry import RECIPES

    tried = [RECIPES[name] for name in _TRIED]
    return [
        recipe.recipe_name
        for recipe in tried
        if not recipe.missing() and not recipe.unfit("cpu") and (has_calibration or not recipe.needs_calibration)
    ]


def _name_of(factory: str) -> str:
    """'digits-vit' of `shop:load_digits_vit`, 'vision' of `shop.vision:load_model`."""
    module, _, function = factory.partition(":")
    words = [word for word in function.split(".")[-1].lower().split("_") if word and word not in _SAYS_NOTHING]
    return "-".join(words) or module.split(".")[-1].replace("_", "-")


# --- measuring -------------------------------------------------------------------------------------------------------


def _measured(options: argparse.Namespace, name: str, recipes: Sequence[tuple[Recipe, ...]]) -> Record:
    """All recipes, in one run of the gate's own session. Raises ValueError where the original cannot be measured."""
    from pytest_modelopt.budgets.first import AS_FAST
    from pytest_modelopt.commands.shown import Shown, show
    from pytest_modelopt.options import Options
    from pytest_modelopt.recipes.expression import canonical
    from pytest_modelopt.report.failure import explain
    from pytest_modelopt.session import Session

    settings = Options(True, options.output, False, None, False, options.time_limit, None)
    session = Session(settings, None, Path.cwd(), Shown(), timed_limits=len(recipes))
    try:
        for recipe in recipes:
            case_id = f"{name}/{canonical(recipe)}"
            case = session.run(case_id, name, (AS_FAST,), _variant(options, canonical(recipe)))
            if session.runner.original_failed:
                raise ValueError(explain(case, strict=False))
            session.add(case)
        return session.record(complete=True)
    finally:
        session.close()
        show("")


def _variant(options: argparse.Namespace, recipe: str) -> Variant:
    from pytest_modelopt.measure.variant import Variant, added_recipes_now, environment_now
    from pytest_modelopt.metrics import MetricSpec

    folders = dict.fromkeys((str(Path.cwd()), str(options.output.absolute().parent)))
    return Variant(
        model=options.factory,
        recipe=recipe,
        data=options.data,
        calibration=options.calibration,
        example_inputs=options.example_inputs,
        metric=MetricSpec(options.metric),
        import_paths=tuple(folders),
        working_directory=str(Path.cwd()),
        environment=environment_now(),
        added_recipes=added_recipes_now(),
    )


# --- telling ---------------------------------------------------------------------------------------------------------


def _outcomes(record: Record, recipes: Sequence[tuple[Recipe, ...]]) -> list[Outcome]:
    from pytest_modelopt.budgets.first import Outcome
    from pytest_modelopt.recipes.expression import canonical
    from pytest_modelopt.report.cells import PROCESS_METER
    from pytest_modelopt.report.conditions import disturbances
    from pytest_modelopt.report.table import blocks

    rows = {row.case.id: row for block in blocks(record) for row in block.rows if row.case is not None}
    spellings = {canonical(recipe): _spelling(recipe) for recipe in recipes}
    outcomes = []
    for case in record.cases:
        row = rows[case.id]
        memory = row.memory.replace(PROCESS_METER, " in fresh processes")
        told = f"memory {memory}, size {row.size}, {row.speedup} as fast, score {row.score}, drop {row.drop}"
        disturbed = ", ".join(disturbances(case.timing)) if case.timing is not None else ""
        outcomes.append(Outcome(spellings[case.recipe], case, told, disturbed))
    return outcomes


def _spelling(recipe: tuple[Recipe, ...]) -> str:
    return " + ".join(step.canonical() for step in recipe)


def _head(options: argparse.Namespace, name: str, record: Record | None = None) -> Head:
    from pytest_modelopt.budgets.first import Head
    from pytest_modelopt.report.summary import machine

    keys = {
        "factory": options.factory,
        "data": options.data,
        "calibration": options.calibration,
        "example_inputs": options.example_inputs,
        "metric": options.metric,
    }
    on = "" if record is None else machine(record).partition("; ")[2]
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    comments = (
        f"Written by `pytest-modelopt init` on {today}, of what was measured on {on}.",
        "The limits leave headroom (5%; 15% of other runtimes' memory; half of a gain in speed): state what you need.",
        "`pytest --modelopt` checks them, `pytest-modelopt update` tightens them to what a run measured.",
    )
    defaults = () if options.time_limit == 20.0 else (("time_limit", f"{options.time_limit:g} s"),)
    return Head(comments, name, tuple((key, value) for key, value in keys.items() if value), defaults)


def _require_that_it_can_be_stated(
    options: argparse.Namespace, name: str, recipes: Sequence[tuple[Recipe, ...]]
) -> None:
    """That a file with this name and this metric checks, before minutes are spent. Raises BudgetsError."""
    import tempfile

    from pytest_modelopt.budgets.file import load_budgets
    from pytest_modelopt.budgets.first import Outcome, render

    with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
        file = Path(folder) / options.output.name
        outcomes = [Outcome(_spelling(recipe), None, "") for recipe in recipes]
        file.write_text(render(_head(options, name), outcomes, 0), encoding="utf-8")
        load_budgets(file, relative_to=file.parent)


def _require_that_it_holds(new: Path, record: Record) -> None:
    """That the file checks, and that what was measured keeps it. Raises ValueError."""
    from dataclasses import replace

    from pytest_modelopt.budgets.file import load_budgets
    from pytest_modelopt.budgets.judge import judge

    cases = {case.recipe: case for case in record.cases}
    for entry in load_budgets(new, relative_to=new.parent).cases:
        case = judge(replace(cases[entry.recipe], limits=entry.limits), timed_limits=record.timed_limits)
        for verdict in case.verdicts:
            if verdict.outcome != "pass":
                raise ValueError(f"a limit that was made would not hold, so nothing was written: {verdict.sentence}")
