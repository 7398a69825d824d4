"""Workloads of a budgets file: how the call is made at each of them, and what is wrong with their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import CallSpec, DefaultsSpec, Location, ModelSpec
from pytest_modelopt.config.sharing import mapping_or_empty
from pytest_modelopt.limits.spelling import did_you_mean, plain, shown
from pytest_modelopt.results.workload import Taken, Workload, without_workload, wrong_name

CASES_AT = ("original", "recipes", "candidates")
"""Keys of a model below which limits at a workload may stand."""


def workloads_of(spec: ModelSpec, defaults: DefaultsSpec) -> tuple[Workload, ...]:
    """Those of a model, or the one way in which it is called; those on one device stand together."""
    stated: Mapping[str, CallSpec] = spec.workloads or {"": CallSpec()}
    found = [_workload(name, own, spec, defaults) for name, own in stated.items()]
    devices = list(dict.fromkeys(each.device for each in found))
    return tuple(sorted(found, key=lambda each: devices.index(each.device)))


def _workload(name: str, own: CallSpec, model: ModelSpec, defaults: DefaultsSpec) -> Workload:
    inputs = own.example_inputs or model.example_inputs
    return Workload(
        name=name,
        batch_size=own.batch_size or model.batch_size or defaults.batch_size,
        threads=own.threads or model.threads or defaults.threads,
        device=own.device or model.device or defaults.device,
        time_limit_s=own.time_limit or model.time_limit or defaults.time_limit,
        example_inputs=inputs or None,
        takes=_taken(own, model) if inputs else "first",
    )


def _taken(own: CallSpec, model: ModelSpec) -> Taken:
    """Which of the example inputs the call has: what is stated closer decides."""
    levels = (own, model)
    inputs = next(level for level, spec in enumerate(levels) if spec.example_inputs)
    batch = next((level for level, spec in enumerate(levels) if spec.batch_size), len(levels))
    return "exactly" if inputs == batch else "first" if batch < inputs else "all"


# --- problems --------------------------------------------------------------------------------------------------------


def workload_problems(document: Document) -> Iterator[Problem]:
    """Names that no test can have, and workloads that are named and not there."""
    for model, entry in mapping_or_empty(document.data.get("models")).items():
        known = mapping_or_empty(mapping_or_empty(entry).get("workloads"))
        for name in known:
            why = wrong_name(name)
            if why:
                at: Location = ("models", model, "workloads", name)
                yield document.problem(at, f"the workload {shown(name)} of {plain(model)} {why}")
        for where, stated in _rows(model, entry):
            if without_workload(str(where[-1]))[1]:
                yield document.problem(
                    where,
                    f"{shown(where[-1])} of {plain(model)} names a workload; state what holds for it there only below "
                    "`workloads:` of the recipe, or below the workload itself",
                )
            for name in mapping_or_empty(mapping_or_empty(stated).get("workloads")):
                if name not in known:
                    missing = f"{plain(model)} has no workload {shown(name)}{did_you_mean(name, known)}"
                    yield document.problem((*where, "workloads", name), missing)


def _rows(model: str, entry: object) -> Iterator[tuple[Location, object]]:
    """The mappings of a model that hold limits of single rows, and where they stand."""
    for key in CASES_AT:
        stated = mapping_or_empty(entry).get(key)
        if key == "original":
            yield ("models", model, key), stated
        else:
            yield from (((*("models", model, key), name), own) for name, own in mapping_or_empty(stated).items())


def same_twice(document: Document, model: str, workloads: tuple[Workload, ...]) -> Iterator[Problem]:
    """Workloads at which the call is made as at another one: both rows would tell the same."""
    first: dict[tuple[object, ...], str] = {}
    for each in workloads:
        other = first.setdefault(each.call, each.name)
        if other != each.name:
            at: Location = ("models", model, "workloads", each.name)
            line = document.line((*at[:-1], other))
            yield document.problem(
                at,
                f"the workload {shown(each.name)} of {plain(model)} is measured as {shown(other)} in line {line} is: "
                "the same batch_size, threads, device and example_inputs; keep one of them, with the limits of both",
            )
