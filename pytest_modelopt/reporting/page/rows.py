"""The page's table of all cases: verdict, name, and each figure with the limit that bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.reporting.page.case_view import CaseView, Tone, change_of
from pytest_modelopt.reporting.samples import Family, Sample

_ALWAYS = (
    *("memory_bytes", "size_bytes", "latency_seconds", "speedup_ratio", "score", "drop", "flips"),
    *("memory_growth_ratio", "size_growth_ratio", "slowdown_ratio", "loss", "changed_answers"),
)
"""Further figures have a column where a limit bounds them."""


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | None = None
    """By which rows are sorted."""
    more: str = ""
    """How it changed, and the bound: '-65%, at most 3 MiB'."""
    tone: Tone = "plain"


@dataclass(frozen=True)
class TableRow:
    name: str
    anchor: str
    """'' of an original that no case is about."""
    outcome: str
    tone: Tone
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    title: str
    headers: tuple[str, ...]
    rows: tuple[TableRow, ...]


def table(
    title: str,
    views: Sequence[CaseView],
    figures: Mapping[int, Mapping[str, Sample]],
    originals: Sequence[Sequence[Sample]],
) -> Table | None:
    """The rows of each model together, the original first; None where there is no case.

    `figures`: of each case, by its id and the name of the family; `originals`: samples of models by themselves.
    """
    found: list[Mapping[str, Sample]] = [
        *(figures[id(view.case)] for view in views),
        *map(_by_name, originals),
    ]
    families: dict[str, Family] = {
        sample.family.name: sample.family
        for of in found
        for sample in of.values()
        if sample.family.name in _ALWAYS or sample.verdict is not None
    }
    ordered = sorted(families.values(), key=lambda each: _ALWAYS.index(each.name) if each.name in _ALWAYS else 99)
    rows: dict[str, list[TableRow]] = {view.case.model: [] for view in views}  # in the order of the models
    for of in originals:
        row = TableRow(of[0].name, "", "", "plain", _cells(ordered, _by_name(of)))
        rows.setdefault(of[0].case.model, []).append(row)
    for view in views:
        cells = _cells(ordered, figures[id(view.case)])
        rows[view.case.model].append(TableRow(view.name, view.anchor, view.outcome, view.tone, cells))
    headers = tuple(each.title for each in ordered)
    return Table(title, headers, tuple(row for of in rows.values() for row in of)) if views else None


def _by_name(samples: Sequence[Sample]) -> dict[str, Sample]:
    return {sample.family.name: sample for sample in samples}


def _cells(families: Sequence[Family], of: Mapping[str, Sample]) -> tuple[Cell, ...]:
    return tuple(_cell(of.get(family.name)) for family in families)


def _cell(sample: Sample | None) -> Cell:
    if sample is None:
        return Cell("-")
    verdict = sample.verdict
    change = change_of(sample.case, sample.family.name) if sample.is_of_variant else ""
    if verdict is None:
        return Cell(sample.text, sample.value, change)
    limit = verdict.limit
    sign = "≤" if LIMITS[limit.name].bounds_from_above(sample.case) else "≥"
    tone: Tone = "good" if verdict.outcome == "pass" else "bad" if verdict.is_red else "unsure"
    return Cell(sample.text, sample.value, ", ".join(filter(None, (change, f"{sign} {limit.text}"))), tone)
