"""Targets of a budgets file: which limits hold on which machine, and what is wrong with their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_modelopt.config.document import Document
from pytest_modelopt.config.problems import Problem
from pytest_modelopt.config.schema import Location
from pytest_modelopt.config.sharing import mapping_or_empty
from pytest_modelopt.config.workloads import CASES_AT
from pytest_modelopt.limits.catalogue import is_looser, merge
from pytest_modelopt.limits.spelling import did_you_mean, plain, shown
from pytest_modelopt.results.record import Target
from pytest_modelopt.results.target import Fingerprint, lacks
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.results.workload import wrong_name


@dataclass(frozen=True)
class AtTarget:
    """The limits of one case on the machines of a target."""

    target: Target
    limits: tuple[Limit, ...]


def limits_on(
    machine: Fingerprint, everywhere: tuple[Limit, ...], at_targets: Sequence[AtTarget], higher_is_better: bool | None
) -> tuple[Limit, ...]:
    """Those limits of a case that hold on the machine: those stated everywhere, and those of the targets that it is."""
    there = (limit for at in at_targets if not lacks(at.target, machine) for limit in at.limits)
    return strictest((*there, *everywhere), higher_is_better)


def strictest(limits: Iterable[Limit], higher_is_better: bool | None) -> tuple[Limit, ...]:
    """One limit of each name, by which all of them hold. One that only warns never takes another's place."""
    chosen: dict[str, Limit] = {}
    for limit in limits:
        known = chosen.setdefault(limit.name, limit)
        stricter = is_looser(limit.name, known.value, limit.value, higher_is_better=higher_is_better)
        if stricter if limit.level == known.level else limit.level == "error":
            chosen[limit.name] = limit
    return merge([tuple(chosen.values())])


def target_problems(document: Document) -> Iterator[Problem]:
    """Names that cannot be shown, and targets that are named and not there."""
    known = mapping_or_empty(document.data.get("targets"))
    for name in known:
        if why := wrong_name(name):
            yield document.problem(("targets", name), f"the target {shown(name)} {why}")
        elif "," in name:
            message = (
                f"the target {shown(name)} contains `,`, which stands between names of --modelopt-targets; use `-`"
            )
            yield document.problem(("targets", name), message)
    for model, entry in mapping_or_empty(document.data.get("models")).items():
        for where, whose, stated in _stated(model, mapping_or_empty(entry)):
            for name in mapping_or_empty(stated):
                if name not in known:
                    missing = f"{whose} names the target {shown(name)}, which `targets:` of the file has not"
                    yield document.problem((*where, name), f"{missing}{did_you_mean(name, known)}")


def _stated(model: str, entry: Mapping[str, Any]) -> Iterator[tuple[Location, str, object]]:
    """Where limits of a model stand at targets, whose they are, and what is there."""
    at: Location = ("models", model)
    yield (*at, "targets"), plain(model), entry.get("targets")
    for key in CASES_AT:
        rows = mapping_or_empty(entry.get(key))
        for name, own in [("", rows)] if key == "original" else rows.items():
            below: Location = (*at, key, name) if name else (*at, key)
            yield (*below, "targets"), plain(f"{model}/{name or key}"), mapping_or_empty(own).get("targets")
