"""budgets.yaml in, models and cases out. Whatever is wrong with a file is said at once, each problem with its line."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel, ValidationError

from pytest_modelopt.config import schema
from pytest_modelopt.config.call_checks import call_problems
from pytest_modelopt.config.candidate_checks import candidate_problems, data_problems
from pytest_modelopt.config.document import Document, read_document
from pytest_modelopt.config.errors import explain
from pytest_modelopt.config.limit_schema import LimitSpec, OriginalSpec
from pytest_modelopt.config.model_checks import name_problems, read_recipes
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.config.schema import Location
from pytest_modelopt.config.target_checks import limits_held_nowhere, undecided_limits
from pytest_modelopt.config.targets import AtTarget, limits_on, target_problems
from pytest_modelopt.config.waiver_list import StatedWaiver, stated_waivers, waiver_problems
from pytest_modelopt.config.workloads import same_twice, workload_problems, workloads_of
from pytest_modelopt.limits.catalogue import LIMITS, merge, parse_inference
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.candidate import Candidate
from pytest_modelopt.results.case import ORIGINAL
from pytest_modelopt.results.generation import Generation
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.source import Named, ProgramSource
from pytest_modelopt.results.target import Fingerprint, is_for
from pytest_modelopt.results.verdicts import Limit, Waiver
from pytest_modelopt.results.workload import Workload, at_workload

if TYPE_CHECKING:
    from pytest_modelopt.optimizing.expression import Expression


@dataclass(frozen=True)
class ModelEntry:
    """One model of the file. Functions are named `package.module:function`."""

    name: str
    origin: Named | ProgramSource
    """Its factory, or its file."""
    data: Named | None
    calibration: Named | None
    example_inputs: Named | None
    metric: MetricSpec
    line: int
    slices: str | None = None
    batch_of: int | str | None = None
    call: str | None = None
    optimize: str = ""
    inference: Inference = "set"
    budget: tuple[Limit, ...] = ()
    """Those of `budget:`, which hold for every variant."""
    regression: tuple[Limit, ...] = ()
    """Of the original against the base."""
    original: tuple[Limit, ...] = ()
    """Of the original alone."""
    workloads: tuple[Workload, ...] = (Workload(),)
    """Its operating points, those on one device together; one without a name where none are stated."""
    generation: Generation | None = None
    """How it generates; None for a model that is called once."""


@dataclass(frozen=True)
class Defaults:
    """How every case is measured, unless the command line says otherwise."""

    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    time_limit_s: float = 20.0
    """Of the timing of one comparison."""
    step_limit_s: float = 600.0
    """Of any one step of a worker: load, optimize, score."""
    inference: Inference = "set"


@dataclass(frozen=True)
class CaseEntry:
    """One (model, recipe, budget). The recipe is in canonical spelling; or it is `ORIGINAL`, the model as it is, or the
    name of a candidate."""

    model: ModelEntry
    recipe: str
    limits: tuple[Limit, ...]
    """Those that hold on the machine on which the file was read."""
    line: int
    regression: tuple[Limit, ...] = ()
    """Of this variant against the same at the base."""
    candidate: Candidate | None = None
    expression: Expression | None = None
    """The recipe, where it is one."""
    workload: Workload = field(default_factory=Workload)
    """At which it is measured."""
    everywhere: tuple[Limit, ...] = ()
    """Limits that were stated without a target."""
    at_targets: tuple[AtTarget, ...] = ()

    def limits_on(self, machine: Fingerprint) -> tuple[Limit, ...]:
        """Those that hold on another machine."""
        return limits_on(machine, self.everywhere, self.at_targets, self.model.metric.known_direction)

    @property
    def of_all_machines(self) -> tuple[Limit, ...]:
        """Every limit that holds on some machine."""
        return (*self.everywhere, *(limit for at in self.at_targets for limit in at.limits))

    @property
    def row(self) -> str:
        return at_workload(self.recipe, self.workload.name)

    @property
    def name(self) -> str:
        return f"{self.model.name}/{self.row}"


@dataclass(frozen=True)
class BudgetsFile:
    """A checked budgets.yaml. `path` is absolute."""

    path: Path
    defaults: Defaults
    models: tuple[ModelEntry, ...]
    cases: tuple[CaseEntry, ...]
    file: str = ""
    """As problems and limits name it: relative to the root of the tests, where it is inside."""
    waivers: tuple[StatedWaiver, ...] = ()
    base_setup: tuple[str, ...] = ()
    """The command that makes in the tree of a base what git ignores; empty where there is none."""
    targets: tuple[Target, ...] = ()

    @property
    def originals(self) -> tuple[CaseEntry, ...]:
        """Every original at every workload, whether `original:` states limits of it or not."""
        stated = {case.name: case for case in self.cases if case.recipe == ORIGINAL}
        waivers = {(each.case, each.limit): each.waiver for each in self.waivers}
        made = (
            CaseEntry(model, ORIGINAL, (), model.line, model.regression, workload=workload)
            for model in self.models
            for workload in model.workloads
        )
        return tuple(
            stated.get(entry.name) or replace(entry, regression=_waived(entry.name, entry.regression, waivers))
            for entry in made
        )


def load_budgets(
    path: Path,
    *,
    relative_to: Path,
    expired: Literal["refuse", "keep"] = "refuse",
    today: datetime.date | None = None,
    root: Path | None = None,
    at: Path | None = None,
) -> BudgetsFile:
    """Read and check a budgets file. Problems and limits name it relative to `relative_to`, where it is inside.

    Files of models must lie below `root`, of the project (None: `relative_to`). `at`: where a text is to stand that is
    only provisionally in `path`.

    A waiver whose last day is before `today` (of UTC, where None) is a problem, unless `expired` is "keep": the
    waivers of a base may have run out since.

    Raises:
        BudgetsError: with all problems of the file.
    """
    place = Path(os.path.abspath(at or path))  # noqa: PTH100 -- links stay as the user names them
    file, from_root = (_name(place, Path(os.path.abspath(folder))) for folder in (relative_to, root or relative_to))  # noqa: PTH100
    document = read_document(path, file, from_root)
    recipes, recipe_problems = read_recipes(document)
    problems = [*document.problems, *name_problems(document), *recipe_problems]
    problems += [*candidate_problems(document), *data_problems(document), *workload_problems(document)]
    problems += [*call_problems(document), *target_problems(document)]
    try:
        schema.validate_patterns(document.patterns)
    except ValidationError as error:
        problems += _schema_problems(document, error, ("models",))
    try:
        spec = schema.validate(document.data)
        defaults = spec.defaults or schema.DefaultsSpec()
        for name, model in spec.models.items():
            problems += same_twice(document, name, workloads_of(model, defaults))
    except ValidationError as error:
        problems += _schema_problems(document, error)
    now = today or datetime.datetime.now(datetime.timezone.utc).date()
    problems += waiver_problems(document, recipes, today=now if expired == "refuse" else None)
    if problems:
        in_order = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
        raise BudgetsError(in_order)
    return _build(place, spec, recipes, document)


def _name(path: Path, relative_to: Path) -> str:
    return path.relative_to(relative_to).as_posix() if path.is_relative_to(relative_to) else path.as_posix()


# --- YAML ------------------------------------------------------------------------------------------------------------


def _schema_problems(document: Document, error: ValidationError, around: Location = ()) -> Iterator[Problem]:
    for finding in error.errors(include_url=False):
        location = document.stated_at((*around, *finding["loc"]))
        if any(location[: len(bad)] == bad for bad in document.unreadable):
            continue
        cause = finding.get("ctx", {}).get("error")
        yield document.problem(location, explain(location, finding["type"], finding["input"], cause))


# --- the result ------------------------------------------------------------------------------------------------------


def _build(
    path: Path, spec: schema.BudgetsSpec, recipes: dict[Location, Expression], document: Document
) -> BudgetsFile:
    defaults = _defaults(spec.defaults)
    targets = tuple(stated.target(name) for name, stated in spec.targets.items())
    models: list[ModelEntry] = []
    cases: list[CaseEntry] = []
    for name, model_spec in spec.models.items():
        at: Location = ("models", name)
        model = _model(name, model_spec, document.line(at), defaults)
        model = replace(
            model,
            budget=_budget(model_spec, at, targets, document),
            regression=_limits(model_spec.regression, (*at, "regression"), document),
            original=_limits(model_spec.original, (*at, "original"), document),
            workloads=workloads_of(model_spec, spec.defaults or schema.DefaultsSpec()),
        )
        models.append(model)
        rows = list(_rows(model, model_spec, recipes, document))
        for device in dict.fromkeys(workload.device for workload in model.workloads):  # each has workers of its own
            points = [workload for workload in model.workloads if workload.device == device]
            cases += [_at(workload, row, model_spec, targets, document) for row in rows for workload in points]
    budgets = BudgetsFile(
        path,
        defaults,
        tuple(models),
        tuple(cases),
        document.file,
        base_setup=spec.base_setup,
        targets=targets,
    )
    if problems := [*undecided_limits(budgets.cases, document), *limits_held_nowhere(spec, budgets, document)]:
        raise BudgetsError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
    return _on_this_machine(_with_waivers(budgets, spec, document))


def _budget(spec: schema.ModelSpec, at: Location, targets: tuple[Target, ...], document: Document) -> tuple[Limit, ...]:
    """Limits of every variant of a model on this machine."""
    everywhere = _limits(spec.budget, (*at, "budget"), document)
    if not targets:
        return everywhere
    from pytest_modelopt.optimizing.this_machine import fingerprint

    stated = [
        AtTarget(each, _limits(spec.targets.get(each.name), (*at, "targets", each.name), document)) for each in targets
    ]
    return limits_on(fingerprint(), everywhere, stated, spec.metric.spec().known_direction)


def _on_this_machine(budgets: BudgetsFile) -> BudgetsFile:
    """With the limits that hold here."""
    if not budgets.targets:
        return budgets
    from pytest_modelopt.optimizing.this_machine import fingerprint

    here = fingerprint()
    return replace(budgets, cases=tuple(replace(case, limits=case.limits_on(here)) for case in budgets.cases))


_Row: TypeAlias = "tuple[CaseEntry, OriginalSpec | None, Location]"
"""A case before its workload is known, with what states its own limits, and where that stands."""


def _rows(
    model: ModelEntry, spec: schema.ModelSpec, recipes: dict[Location, Expression], document: Document
) -> Iterator[_Row]:
    """The original, where it has limits, the recipes and the candidates, with the limits that hold at any workload."""
    at: Location = ("models", model.name)
    shared = _limits(spec.budget, (*at, "budget"), document)
    if spec.original is not None:
        here: Location = (*at, ORIGINAL)
        yield CaseEntry(model, ORIGINAL, model.original, document.line(here), model.regression), spec.original, here
    for written, budget in spec.recipes.items():
        here = (*at, "recipes", written)
        limits = merge([_limits(budget, here, document), shared])
        own = _limits(budget.regression, (*here, "regression"), document) if budget is not None else ()
        regression = merge([own, model.regression])
        recipe = recipes[here]
        yield (
            CaseEntry(model, recipe.text, limits, document.line(here), regression, expression=recipe),
            budget,
            here,
        )
    for candidate, stated in spec.candidates.items():
        here = (*at, "candidates", candidate)
        binding = tuple(limit for limit in shared if not LIMITS[limit.name].is_about_recipe)
        limits = merge([_limits(stated, here, document), binding])
        regression = merge([_limits(stated.regression, (*here, "regression"), document), model.regression])
        places: tuple[tuple[str, Mapping[str, BaseModel]], ...] = (
            ("workloads", spec.workloads),
            ("targets", spec.targets),
        )
        points = (
            _limits(point, (*at, key, name), document) for key, all_of in places for name, point in all_of.items()
        )
        left_out = tuple(limit.name for limit in merge([shared, *points]) if LIMITS[limit.name].is_about_recipe)
        origin = Candidate(candidate, stated.origin, left_out)
        yield CaseEntry(model, candidate, limits, document.line(here), regression, origin), stated, here


def _at(
    workload: Workload, row: _Row, spec: schema.ModelSpec, targets: tuple[Target, ...], document: Document
) -> CaseEntry:
    """The case at a workload: what is stated of the two together goes before what the workload states, and that before
    what holds wherever it runs. The original has its own limits only."""
    entry, stated, here = row
    model: Location = ("models", entry.model.name)

    def limits_at(kind: Literal["workloads", "targets"], name: str) -> tuple[Limit, ...]:
        """Those that the case itself states there, before those that the model does."""
        of_case, of_model = (getattr(each, kind).get(name) if each is not None else None for each in (stated, spec))
        own = _limits(of_case, (*here, kind, name), document)
        shared = _limits(of_model, (*model, kind, name), document)
        if entry.recipe == ORIGINAL:
            shared = ()
        if entry.candidate is not None:
            shared = tuple(limit for limit in shared if not LIMITS[limit.name].is_about_recipe)
        return merge([own, shared])

    limits = merge([limits_at("workloads", workload.name), entry.limits])
    of_targets = (AtTarget(each, limits_at("targets", each.name)) for each in targets if is_for(each, workload.device))
    at_targets = tuple(at for at in of_targets if at.limits)
    return replace(entry, limits=limits, everywhere=limits, at_targets=at_targets, workload=workload)


def _with_waivers(budgets: BudgetsFile, spec: schema.BudgetsSpec, document: Document) -> BudgetsFile:
    """The same, with its waivers, which stand at their limits, too."""
    metrics = {model.name: model.metric for model in budgets.models}
    waivers = stated_waivers(document, spec.waivers or [], metrics)
    by_limit = {(each.case, each.limit): each.waiver for each in waivers}
    models = {model.name: _waived_model(model, by_limit) for model in budgets.models}
    cases = tuple(
        replace(
            case,
            model=models[case.model.name],
            limits=_waived(case.name, case.limits, by_limit),
            everywhere=_waived(case.name, case.everywhere, by_limit),
            at_targets=tuple(replace(at, limits=_waived(case.name, at.limits, by_limit)) for at in case.at_targets),
            regression=_waived(case.name, case.regression, by_limit),
        )
        for case in budgets.cases
    )
    return replace(budgets, models=tuple(models.values()), cases=cases, waivers=waivers)


def _waived_model(model: ModelEntry, by_limit: Mapping[tuple[str, str], Waiver]) -> ModelEntry:
    name = f"{model.name}/{ORIGINAL}"
    regression, original = (_waived(name, limits, by_limit) for limits in (model.regression, model.original))
    return replace(model, regression=regression, original=original)


def _waived(case: str, limits: tuple[Limit, ...], by_limit: Mapping[tuple[str, str], Waiver]) -> tuple[Limit, ...]:
    return tuple(replace(limit, waiver=by_limit.get((case, limit.name))) for limit in limits)


def _model(name: str, spec: schema.ModelSpec, line: int, defaults: Defaults) -> ModelEntry:
    return ModelEntry(
        name=name,
        origin=spec.origin,
        data=spec.data or None,
        calibration=spec.calibration or None,
        example_inputs=spec.example_inputs or None,
        metric=spec.metric.spec(),
        line=line,
        slices=spec.slices or None,
        batch_of=spec.batch_of or None,
        call=spec.call if isinstance(spec.call, str) else None,
        optimize=spec.optimize,
        inference=parse_inference(spec.inference) if spec.inference else defaults.inference,
        generation=None if spec.call is None or isinstance(spec.call, str) else spec.call.spec(),
    )


def _defaults(spec: schema.DefaultsSpec | None) -> Defaults:
    given = spec or schema.DefaultsSpec()
    return Defaults(given.device, given.threads, given.batch_size, given.time_limit, given.step_limit, given.inference)


def _limits(budget: BaseModel | None, location: Location, document: Document) -> tuple[Limit, ...]:
    """The limits that one mapping states, each with the line that states it."""
    names = [name for name in LIMITS if budget is not None and name in budget.model_fields_set]
    return tuple(_limit(name, getattr(budget, name), (*location, name), document) for name in names)


def _limit(name: str, spec: LimitSpec, location: Location, document: Document) -> Limit:
    inner: Location = (*location, "limit")
    text = document.texts[location] if location in document.texts else document.texts[inner]
    return Limit(name, spec.limit, text, spec.level, document.file, document.line(location))
