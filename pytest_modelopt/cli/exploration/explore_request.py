"""The request to `pytest-modelopt explore`: its model, its limits and the recipes to try."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.arguments import reference
from pytest_modelopt.cli.shared.model_options import loaded, model_keys, name_of
from pytest_modelopt.limits.catalogue import BUDGET_LIMITS

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import BudgetsFile, ModelEntry
    from pytest_modelopt.exploring.space import Space
    from pytest_modelopt.results.verdicts import Limit


def model_of(options: argparse.Namespace, path: Path) -> tuple[BudgetsFile, ModelEntry]:
    """The model, and the file in which it stands, or would stand."""
    from pytest_modelopt.config.loader import load_budgets
    from pytest_modelopt.editing.first_budgets import Head, Outcome, render
    from pytest_modelopt.limits.spelling import did_you_mean

    if ":" in options.model:
        factory = reference(options.model)
        if options.data is None and options.example_inputs is None:
            raise ValueError(
                f"there is nothing to call {factory} on: give --data PACKAGE.MODULE:FUNCTION, and --metric agreement "
                "where there are no labels; or --example-inputs alone, where its answers do not matter"
            )
        head = Head((), options.name or name_of(factory), model_keys(options, factory))
        stated = (Outcome("int8-dynamic", None),)  # a model of a budgets file has a recipe
        budgets = loaded(render(head, stated, 0), path, options.root)
        return budgets, budgets.models[0]
    given = [key for key, value in model_keys(options, "") if key != "metric" or value != "accuracy"]
    if given:
        raise ValueError(
            f"--{given[0].replace('_', '-')} belongs to PACKAGE.MODULE:FUNCTION; of {options.model} {path} says it"
        )
    budgets = load_budgets(path.resolve(), relative_to=Path.cwd(), root=options.root)
    models = {model.name: model for model in budgets.models}
    if options.model not in models:
        raise ValueError(
            f"{path} has no model {options.model!r}{did_you_mean(options.model, list(models))}; a model that no file "
            "has is given as PACKAGE.MODULE:FUNCTION"
        )
    return budgets, models[options.model]


def limits_of(options: argparse.Namespace, model: ModelEntry) -> tuple[Limit, ...]:
    """Those of options before those of `budget:`.

    Raises:
        ValueError: for a value that is none, and for a limit that can never be measured on this model.
    """
    from pytest_modelopt.limits.catalogue import LIMITS, merge

    stated = tuple(_stated(options, model))
    limits = merge([stated, model.budget])
    metric, slices = model.metric, None if model.slices is None else str(model.slices)
    for limit in limits:
        kind = LIMITS[limit.name]
        why = kind.never_measured(metric, slices, model.inference)
        if kind.is_about_answers and model.data is None:
            why = "there is no data to answer on: give --data"
        if why:
            raise ValueError(f"{limit.name} {limit.text}: {why}")
    return limits


def _stated(options: argparse.Namespace, model: ModelEntry) -> Iterator[Limit]:
    import yaml

    from pytest_modelopt.limits.catalogue import parse_value
    from pytest_modelopt.limits.units import UnitError
    from pytest_modelopt.results.metric import in_unit_interval
    from pytest_modelopt.results.verdicts import Limit

    metric = model.metric.name if isinstance(model.metric.name, str) else None
    for name in BUDGET_LIMITS:
        text = getattr(options, name)
        if text is None:
            continue
        option = f"--{name.replace('_', '-')}"
        try:
            raw = yaml.safe_load(text)
            value = parse_value(name, raw, unit_interval=in_unit_interval(metric) if metric else None)
        except (UnitError, yaml.YAMLError) as error:
            raise ValueError(f"{option} {text}: {error}") from None
        yield Limit(name, value, text, "error", "command line", 1)


def space_of(options: argparse.Namespace, model: ModelEntry) -> Space:
    from pytest_modelopt.exploring.space import explored, runnable

    device = model.workloads[0].device.partition(":")[0]
    return runnable(options.recipe or explored(), device, has_calibration=model.calibration is not None)


def tunes(options: argparse.Namespace) -> bool:
    return not options.recipe if options.tune is None else bool(options.tune)


def training_of(options: argparse.Namespace, budgets: BudgetsFile, model: ModelEntry) -> str:
    """The function that trains, `package.module:function`: as the option says it, or as the model's recipes do where
    they name one and what is tried is left to explore.

    Raises:
        ValueError: there is nothing to train on.
    """
    named = {
        case.expression.training
        for case in budgets.cases
        if case.model.name == model.name and case.expression is not None and case.expression.training
    }
    if options.finetune is not None:
        if model.calibration is None:
            raise ValueError(f"--finetune {options.finetune}: there is nothing to train on: give --calibration")
        return str(options.finetune)
    return named.pop() if len(named) == 1 and model.calibration is not None and not options.recipe else ""


def with_knobs(options: argparse.Namespace, space: Space) -> Space:
    """The space, with the reason where further settings of its recipes cannot be tried."""
    from pytest_modelopt.exploring import tuning

    if not tunes(options) or tuning.is_installed():
        return space
    return replace(space, impossible=(*space.impossible, ("further settings of recipes", tuning.MISSING)))
