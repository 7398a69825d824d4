"""`pytest-modelopt selftest`: can the gate pass and fail on this model, and what can this machine judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.arguments import count, seconds, share
from pytest_modelopt.cli.shared.exit_codes import PASSED, RED
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    import argparse

    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.selftest.controls import ControlPlan


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "selftest",
        help="see whether the gate can pass and can fail on a model (the original against itself, batch norms folded, "
        "90%% of the weights at zero), and which timed limits this machine can judge (identical and slowed copies, the "
        "model's own recipes); exit status 1 where a control is wrong or the limit cannot be judged",
    )
    parser.add_argument("model", nargs="?", help="a model of the budgets file (default: its first one)")
    parser.add_argument(
        "--budgets",
        type=Path,
        help="the budgets file (default: the one that pytest would take), or else a model of our own",
    )
    parser.add_argument(
        "--repeats", type=count, default=20, metavar="K", help="the number of comparisons of each kind (20)"
    )
    parser.add_argument(
        "--limit",
        type=share,
        default=0.1,
        metavar="PERCENT",
        help="the limit to judge: at most this much slower (10%%)",
    )
    parser.add_argument(
        "--slowdown",
        type=share,
        default=0.15,
        metavar="PERCENT",
        help="by how much the slowed copies are slower (15%%)",
    )
    parser.add_argument(
        "--time-limit",
        type=seconds,
        default=20.0,
        metavar="TIME",
        help="the longest that timing may take, per comparison (20 s)",
    )
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.cli.shared.progress_line import Shown, show
    from pytest_modelopt.measuring.controller.process import WorkerFailed
    from pytest_modelopt.results.files.locked_folders import held_folder
    from pytest_modelopt.selftest.controls import run_controls
    from pytest_modelopt.selftest.selftest_text import control_lines, lines
    from pytest_modelopt.selftest.trials import Plan
    from pytest_modelopt.selftest.trials import run as run_trials

    if options.slowdown <= options.limit:
        raise ValueError(
            "--slowdown must be larger than --limit, since a slowed copy has to break the limit: raise the one or "
            "lower the other"
        )
    controls_of = control_plan(options)
    variant, name = controls_of.variant, controls_of.name
    plan = Plan(
        variant, name, options.repeats, options.slowdown, options.limit, options.time_limit, controls_of.recipes
    )

    try:
        controls = run_controls(controls_of, Shown())
        show("")
        for line in control_lines(name, controls):  # at once: the trials take minutes
            tell(line)
        with held_folder() as folder:
            result = run_trials(
                plan,
                controls,
                folder,
                lambda what, number: show(f"{what}, comparison {number}"),
                Shown(),
            )
    except WorkerFailed as failed:
        raise ValueError(f"{name}: {failed.message}" + (f"\n{failed.output}" if failed.output else "")) from None
    finally:
        show("")
    tell("")
    for line in lines(result):
        tell(line)
    return PASSED if result.is_good else RED


def control_plan(options: argparse.Namespace) -> ControlPlan:
    """For a model of the budgets file, with what its cases demand; for our own where no file is there or asked for."""
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.limits.spelling import did_you_mean
    from pytest_modelopt.measuring.controller.reference_model import reference_variant
    from pytest_modelopt.plugin.planning import variant_of
    from pytest_modelopt.selftest.controls import ControlPlan, accuracy_limits

    path, name = options.budgets or options.default_budgets, options.model
    if options.budgets is None and name is None and not path.exists():
        ours = "a small network of our own (there is no budgets.yaml here)"
        return ControlPlan(reference_variant(), ours, (), options.limit, options.time_limit, "set", ())
    budgets = load_budgets(path.resolve(), relative_to=Path.cwd(), root=options.root)
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
        tuple(
            variant_of(budgets, model, case.expression, Path.cwd())
            for case in budgets.cases
            if case.model == model and case.expression is not None and case.workload == model.workloads[0]
        ),
    )
