"""Limits at targets that could not be judged: found once the whole file is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.limit_schema import OriginalSpec
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import BudgetsSpec, Location, ModelSpec
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.spelling import plain
from pytest_modelopt.results.target import is_for

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pytest_modelopt.config.loader import BudgetsFile, CaseEntry


def undecided_limits(cases: Iterable[CaseEntry], document: Document) -> Iterator[Problem]:
    """Floors of a score that stand at a target and elsewhere, too, under a metric of unknown direction."""
    for case in cases:
        if case.model.metric.known_direction is not None:
            continue
        for limit in (each for at in case.at_targets for each in at.limits if LIMITS[each.name].unit == "score"):
            if any(other.value != limit.value for other in case.of_all_machines if other.name == limit.name):
                why = f"{limit.name} of {plain(case.name)} is stated at a target and elsewhere, and nobody knows which"
                way = "say whether higher is better, `metric: {name: ..., higher_is_better: true}`"
                yield Problem(document.file, limit.line, f"{why} is stricter: {way}")


def limits_held_nowhere(spec: BudgetsSpec, budgets: BudgetsFile, document: Document) -> Iterator[Problem]:
    """Limits of a model at a target on whose device none of its cases runs."""
    for model in budgets.models:
        for target in budgets.targets:
            if any(is_for(target, workload.device) for workload in model.workloads):
                continue
            for where, limits in _stated(model.name, spec.models[model.name], target.name):
                if all(document.stated_at((*where, name))[0] == "targets" for name in limits.model_fields_set):
                    continue  # stated for all models, of which others may run there
                yield document.problem(
                    where,
                    f"the cases of the target {plain(target.name)} run on {target.device}, and no case of "
                    f"{plain(model.name)} does, so these limits would hold nowhere: remove them, or give a workload "
                    f"`device: {target.device}`",
                )


def _stated(model: str, spec: ModelSpec, target: str) -> Iterator[tuple[Location, BaseModel]]:
    """Where limits of a model stand at a target, and what is there."""
    at: Location = ("models", model)
    rows: list[tuple[Location, OriginalSpec | ModelSpec | None]] = [(at, spec), ((*at, "original"), spec.original)]
    rows += [((*at, "recipes", name), stated) for name, stated in spec.recipes.items()]
    rows += [((*at, "candidates", name), stated) for name, stated in spec.candidates.items()]
    for where, stated in rows:
        if stated is not None and target in stated.targets:
            yield (*where, "targets", target), stated.targets[target]
