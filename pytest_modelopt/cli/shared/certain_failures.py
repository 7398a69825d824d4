"""What is certain to make a run red, before anything is imported or measured: each with its line and the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.measuring.function_lookup import Missing, missing
from pytest_modelopt.optimizing.listing import has_gpu
from pytest_modelopt.results.source import Called, Named, ProgramSource

if TYPE_CHECKING:
    from pytest_modelopt.config.document import Document
    from pytest_modelopt.config.loader import BudgetsFile, CaseEntry, ModelEntry
    from pytest_modelopt.config.schema import Location
    from pytest_modelopt.optimizing.recipe import Recipe
    from pytest_modelopt.results.candidate import Candidate

_FUNCTION = re.compile(r"[\w.]+:[\w.]+")
_METRICS_EXTRA = 'it needs torchmetrics: run `pip install "pytest-modelopt[metrics]"`'


@dataclass(frozen=True)
class Cause:
    """One cause in one place, as a sentence; some are only likely."""

    line: int
    sentence: str
    is_certain: bool = True


def causes(budgets: BudgetsFile, document: Document, root: Path) -> list[Cause]:
    """In the order of the file. `root` is the folder of the tests; `document` is what `budgets` was read from."""
    needs_gpu = any(case.workload.device.startswith("cuda") for case in budgets.cases)
    lacks_gpu = needs_gpu and not has_gpu()  # which imports torch
    found = [cause for model in budgets.models for cause in _of_model(model, budgets, document, root)]
    found += [cause for case in budgets.cases for cause in _of_case(case, budgets, root, lacks_gpu=lacks_gpu)]
    if lacks_gpu:
        found += _without_gpu(budgets, document)
    return sorted(dict.fromkeys(found), key=lambda cause: cause.line)


def _without_gpu(budgets: BudgetsFile, document: Document) -> Iterator[Cause]:
    """One cause for each `device` of the file that nothing here is."""
    needs = [case for case in budgets.cases if case.workload.device.startswith("cuda")]
    which = "no case" if len(needs) == len(budgets.cases) else ", ".join(case.name for case in needs)
    for case in needs:
        model: Location = ("models", case.model.name)
        stated: list[Location] = [(*model, "workloads", case.workload.name), model, ("defaults",)]
        where = next((*at, "device") for at in stated if (*at, "device") in document.lines or at == stated[-1])
        verb = "can run" if which == "no case" else "cannot run"
        why = f"{which} {verb}: `device: {case.workload.device}` is asked for, and torch finds no GPU here"
        yield Cause(document.line(where), why)


# --- models ----------------------------------------------------------------------------------------------------------


def _of_model(model: ModelEntry, budgets: BudgetsFile, document: Document, root: Path) -> Iterator[Cause]:
    yield from _without_file(model.origin, model.name, document.line(("models", model.name, "file")), budgets)
    for keys, name, called in _functions(model):
        found = _missing(name, budgets, root, called=called)
        if found is not None:
            at: Location = ("models", model.name, *keys)
            verb = "cannot run" if found.is_certain else "may not run"
            sentence = f"{model.name} {verb}: `{keys[-1]}: {name}`: {found.why}"
            yield Cause(document.line(at), sentence, found.is_certain)


def _functions(model: ModelEntry) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """What every case of the model imports: its place below the model, its name, and whether it is called plainly."""
    for key, made in (("factory", model.origin), ("data", model.data)):
        if isinstance(made, (str, Called)):
            yield (key,), *_called(made)
    for workload in model.workloads:
        if workload.example_inputs:
            at = () if workload.example_inputs == model.example_inputs else ("workloads", workload.name)
            yield (*at, "example_inputs"), *_called(workload.example_inputs)
    if model.slices:
        yield ("slices",), model.slices, False
    if isinstance(model.batch_of, str):
        yield ("batch_of",), model.batch_of, False
    if model.call:
        yield ("call",), model.call, False
    metric = model.metric
    if model.generation is not None and model.generation.step:
        yield ("call", "generate", "step"), model.generation.step, False
    if isinstance(metric.name, str) and not metric.is_built_in:
        yield ("metric",), metric.name, False
    if isinstance(metric.prepare, str):
        yield ("metric", "prepare"), metric.prepare, False


def _called(made: Named) -> tuple[str, bool]:
    """The function's name, and whether it is called plainly."""
    return (made.name, False) if isinstance(made, Called) else (made, True)


def _missing(name: str, budgets: BudgetsFile, root: Path, *, called: bool) -> Missing | None:
    if ":" not in name:  # the path of a class
        module, _, kind = name.rpartition(".")
        is_theirs = module.partition(".")[0] == "torchmetrics"
        if is_theirs and missing("torchmetrics:Metric", budgets.path.parent, root, called=False) is not None:
            return Missing(_METRICS_EXTRA)
        name = f"{module}:{kind}"
    return missing(name, budgets.path.parent, root, called=called)


# --- cases -----------------------------------------------------------------------------------------------------------


def _of_case(case: CaseEntry, budgets: BudgetsFile, root: Path, *, lacks_gpu: bool) -> Iterator[Cause]:
    device, name = case.workload.device.partition(":")[0], f"{case.model.name}/{case.recipe}"
    if case.candidate is not None:
        yield from _of_candidate(case.candidate, case, budgets, root)
    for step in case.expression.steps if case.expression is not None else ():
        lacking = (
            step.missing()
            or ("" if lacks_gpu and device == "cuda" else step.unfit(device))
            or _lacking_function(step, case, budgets, root)
        )
        if lacking:
            yield Cause(case.line, f"{name} cannot run: {lacking}")
    for limit in case.of_all_machines:
        why = LIMITS[limit.name].never_measured(case.model.metric, case.model.slices, case.model.inference)
        if case.model.generation is not None and LIMITS[limit.name].figure == "predictions":
            why = ""  # the next tokens of its sequences are compared whatever scores them
        if why and limit.level == "error":
            yield Cause(limit.line, f"{case.name}: {limit.name} cannot be measured: {why}")


def _of_candidate(candidate: Candidate, case: CaseEntry, budgets: BudgetsFile, root: Path) -> Iterator[Cause]:
    named = f"{case.model.name}/{case.recipe}"
    yield from _without_file(candidate.origin, named, case.line, budgets)
    if isinstance(candidate.origin, (str, Called)):
        name, called = _called(candidate.origin)
        found = _missing(name, budgets, root, called=called)
        if found is not None:
            verb = "cannot run" if found.is_certain else "may not run"
            sentence = f"{named} {verb}: `factory: {name}`: {found.why}"
            yield Cause(case.line, sentence, found.is_certain)


def _without_file(origin: object, name: str, line: int, budgets: BudgetsFile) -> Iterator[Cause]:
    if isinstance(origin, ProgramSource) and not (budgets.path.parent / origin.file).is_file():
        yield Cause(line, f"{name} cannot run: there is no file {origin.file}")


def _lacking_function(step: Recipe, case: CaseEntry, budgets: BudgetsFile, root: Path) -> str:
    """The data, or a function of the recipe's own, that is not stated or certain not to be found; else empty."""
    name = case.model.calibration
    if step.calibrates and name is None:
        return f"{step.recipe_name} needs calibration data: add `calibration:` to the model"
    named = [(f"`calibration: {name}`", *_called(name))] if step.calibrates and name is not None else []
    named += [(f"`{key}={value}`", value, False) for key, value in step if _FUNCTION.fullmatch(str(value))]
    for told, function, called in named:
        found = _missing(function, budgets, root, called=called)
        if found is not None and found.is_certain:
            return f"{told}: {found.why}"
    return ""
