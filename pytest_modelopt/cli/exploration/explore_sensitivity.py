"""`pytest-modelopt explore --sensitivity`: what a recipe costs and gives, layer by layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_modelopt.cli.shared.exit_codes import INTERRUPTED, PASSED
from pytest_modelopt.cli.shared.printing import tell

if TYPE_CHECKING:
    from pytest_modelopt.cli.exploration.explore_gauge import GateGauge
    from pytest_modelopt.exploring.cache import Cache
    from pytest_modelopt.exploring.sensitivity import Sensitivity
    from pytest_modelopt.optimizing.expression import Expression

DEFAULT = "int8-dynamic"


def tell_sensitivity(options: argparse.Namespace, gauge: GateGauge, cache: Cache) -> int:
    """Measure and print it for each --recipe, until the time is over or Ctrl-C; the exit status."""
    from pytest_modelopt.cli.shared.progress_line import show
    from pytest_modelopt.reporting import layer_costs_text
    from pytest_modelopt.reporting.page.layers import render_layers
    from pytest_modelopt.reporting.page.templates import require_jinja2
    from pytest_modelopt.results.files.atomic_files import write_text

    if options.html is not None:
        require_jinja2()
    tables: list[layer_costs_text.LayerTable] = []
    end: BaseException | None = None
    for recipe in _recipes(options):
        found, end = _measured(recipe, gauge, cache)
        show("")
        told = gauge.told(found)
        for line in layer_costs_text.lines(told):
            tell(line)
        tables.append(layer_costs_text.table(told))
        if end is not None:
            break
    if options.html is not None:
        write_text(render_layers(gauge.model.name, tables), options.html)
        tell(f"wrote {options.html}")
    return INTERRUPTED if isinstance(end, KeyboardInterrupt) else PASSED


def _recipes(options: argparse.Namespace) -> list[Expression]:
    from pytest_modelopt.optimizing.expression import parse

    recipes = [parse(text) for text in options.recipe or [DEFAULT]]
    for recipe in recipes:
        if not recipe.can_keep:
            raise ValueError(
                f"--sensitivity: {recipe} changes the model as a whole, and not layer by layer; take another "
                "--recipe, as int8-dynamic"
            )
    return recipes


def _measured(recipe: Expression, gauge: GateGauge, cache: Cache) -> tuple[Sensitivity, BaseException | None]:
    """The costs that were measured, and what ended the measuring early; None where nothing did."""
    from pytest_modelopt.exploring.funnel import TimeIsUp
    from pytest_modelopt.exploring.sensitivity import Sensitivity, known_groups
    from pytest_modelopt.measuring.controller.process import WorkerFailed

    found = Sensitivity(recipe, cache, known_groups(cache, recipe), gauge.watch.tell)
    if found.groups and not found.left:
        return found, None
    try:
        with gauge.layer_trials(recipe) as trials:
            found = Sensitivity(recipe, cache, trials.groups, gauge.watch.tell)
            found.measure(trials)
    except (TimeIsUp, KeyboardInterrupt) as end:
        if not found.groups and isinstance(end, TimeIsUp):
            raise ValueError("--time was over before the layers were known: give more --time") from None
        return found, end
    except WorkerFailed as failed:
        raise ValueError(f"{gauge.model.name}/{recipe}: {failed.message}") from None
    return found, None
