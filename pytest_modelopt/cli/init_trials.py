"""Recipes and files on one model, one after the other, for a first budgets file: what is tried, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pytest_modelopt.cli.init_files import Found
from pytest_modelopt.editing.first_budgets import AS_FAST, NOT_TOO_WRONG, Outcome, why_too_wrong
from pytest_modelopt.exploring.early_out import why_out
from pytest_modelopt.exploring.space import fits, kinds, runnable, usual
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.reporting.cells import (
    PROCESS_METER,
    bounded_drop_cells,
    memory_cells,
    score_cell,
    size_cells,
    speedup_cells,
)
from pytest_modelopt.reporting.failure_text import explain
from pytest_modelopt.results.source import ProgramSource

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import CaseEntry
    from pytest_modelopt.plugin.session import Session
    from pytest_modelopt.results.case import Case, MeasuredCase, Stage
    from pytest_modelopt.results.record import Record


@dataclass(frozen=True)
class Choice:
    """The recipes to try, and those that cannot be tried here: (expression, why); the files that were found."""

    recipes: tuple[Expression, ...]
    impossible: tuple[tuple[str, str], ...] = ()
    found: Found = field(default_factory=Found)


@dataclass(frozen=True)
class Tried:
    record: Record
    outcomes: tuple[Outcome, ...]


def choose(device: str, *, has_calibration: bool) -> Choice:
    """Those of the project first, then the usual ones, as far as they run here."""
    space = runnable(usual(), device, has_calibration=has_calibration)
    return Choice(space.recipes, space.impossible)


def file_of(entry: CaseEntry) -> str:
    """The path of a candidate that is a file; else ''."""
    origin = None if entry.candidate is None else entry.candidate.origin
    return origin.file if isinstance(origin, ProgramSource) else ""


def try_recipes(session: Session, entries: Sequence[CaseEntry], *, within_s: float, told_within: str) -> Tried:
    """Measure the cases, in one run; after `within_s` seconds none is begun.

    Raises:
        ValueError: where the original cannot be measured.
    """
    start = time.monotonic()
    untried: dict[str, str] = {}
    layers: set[str] = set()
    for entry in entries:
        if time.monotonic() - start > within_s:
            untried[entry.recipe] = f"the {told_within} of --within were over"
        elif layers and entry.expression is not None and not fits(entry.expression, layers):
            untried[entry.recipe] = "the model has no layer that they change"
        else:
            variant = session.variant(entry)
            funnel = _Funnel()
            inference = entry.model.inference
            case = session.run(entry.name, entry.model.name, (AS_FAST,), variant, inference, funnel.goes_on)
            if session.runner.original_failed:
                raise ValueError(explain(case, strict=False))
            layers |= _layers(case)
            if funnel.why:
                untried[entry.recipe] = funnel.why
            else:
                session.add(case)
    record = session.record(complete=True)
    told = _format_figures(record)
    cases = {case.recipe: case for case in record.cases}
    outcomes = [
        Outcome(
            str(entry.expression) if entry.expression is not None else entry.recipe,
            cases.get(entry.recipe),
            told.get(entry.recipe, ""),
            untried.get(entry.recipe, ""),
            file_of(entry),
        )
        for entry in entries
    ]
    return Tried(record, tuple(outcomes))


class _Funnel:
    """The funnel of explore, with what init asks for: what is too wrong is not timed, and perhaps not even scored."""

    def __init__(self) -> None:
        self.why = ""
        """Why some of the answers were enough."""

    def goes_on(self, case: MeasuredCase, stage: Stage | Literal["look"]) -> bool:
        if stage == "look":
            self.why = why_out(case, (NOT_TOO_WRONG,))
            return not self.why
        return stage != "timing" or not why_too_wrong(case)


def _layers(case: Case) -> set[str]:
    """The classes of the model's layers, and those of torch that they are derived from; empty where nobody knows."""
    if case.coverage is None or case.reference is None:
        return set()
    seen = case.reference.observations
    derived = seen.derived_layers if seen is not None else None
    return kinds(case.coverage.layers, derived or {})


def _format_figures(record: Record) -> dict[str, str]:
    """What was measured, in words, by recipe."""
    return {case.recipe: _figures(case, record.timed_limits) for case in record.cases if case.error is None}


def _figures(case: Case, timed_limits: int) -> str:
    timing, score = Derived(case).timing, case.variant.score if case.variant is not None else None
    (memory,), (size,), (speedup,) = memory_cells([case]), size_cells([case]), speedup_cells([timing], timed_limits)
    memory = memory.replace(PROCESS_METER, " in fresh processes")
    drop = bounded_drop_cells([case])[0].replace("(< ", "(95% bound: ")
    costs = f"memory {memory}, size {size}, {speedup} as fast"
    return f"{costs}, score {score_cell(case.metric, score)}, drop {drop}"


def canonical_once(texts: Iterable[str]) -> tuple[Expression, ...]:
    """Expressions, each once, however it is spelled."""
    return tuple(dict.fromkeys(map(parse, texts)))
