"""The page's table of all cases: verdict, name, and each figure with the limit that bounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_modelopt.reporting.columns import Mark, Shown
from pytest_modelopt.reporting.page.case_view import CaseView, Tone, change_of
from pytest_modelopt.reporting.page.uniform import both, moved, uniform
from pytest_modelopt.reporting.samples import Family, Sample

_ALWAYS = (
    *("memory_bytes", "size_bytes", "latency_seconds", "speedup_ratio", "score", "drop", "flips"),
    *("memory_growth_ratio", "size_growth_ratio", "slowdown_ratio", "loss", "changed_answers"),
)
"""Further figures have a column where a limit bounds them."""
_MARKS: dict[Tone, Mark] = {"bad": "✗", "unsure": "!", "good": "", "plain": ""}


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | None = None
    """By which rows are sorted."""
    more: str = ""
    """How it changed: '-65%', '134 -> 150 KiB'."""
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
    """The rows of each model together, the original first, in columns of one unit; None where there is no case.

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
    columns = [_column(family, [of.get(family.name) for of in found]) for family in ordered]
    cells = dict(zip(map(id, found), zip(*columns, strict=True), strict=True)) if columns else {}
    rows: dict[str, list[TableRow]] = {view.case.model: [] for view in views}  # in the order of the models
    for of, named in zip(originals, found[len(views) :], strict=True):
        row = TableRow(of[0].name, "", "", "plain", cells.get(id(named), ()))
        rows.setdefault(of[0].case.model, []).append(row)
    for view, named in zip(views, found, strict=False):
        row = TableRow(view.name, view.anchor, view.outcome, view.tone, cells.get(id(named), ()))
        rows[view.case.model].append(row)
    headers = tuple(each.title for each in ordered)
    return Table(title, headers, tuple(row for of in rows.values() for row in of)) if views else None


def _by_name(samples: Sequence[Sample]) -> dict[str, Sample]:
    return {sample.family.name: sample for sample in samples}


def _column(family: Family, of: Sequence[Sample | None]) -> list[Cell]:
    known = [sample for sample in of if sample is not None]
    bounded = [None if sample is None or sample.verdict is None else sample.verdict for sample in of]
    tones: list[Tone] = [
        "plain" if each is None else "good" if each.outcome == "pass" else "bad" if each.is_red else "unsure"
        for each in bounded
    ]
    limits = [None if each is None else each.limit.value for each in bounded]
    shown = [
        Shown(None if sample is None else sample.value, limit=limit, mark=_MARKS[tone])
        for sample, limit, tone in zip(of, limits, tones, strict=True)
    ]
    texts = uniform(family, known, shown)
    changes = _changes(known)
    return [
        Cell(text) if sample is None else Cell(text, sample.value, changes.get(id(sample), ""), tone)
        for sample, text, tone in zip(of, texts, tones, strict=True)
    ]


def _changes(of: Sequence[Sample]) -> dict[int, str]:
    """How the figures of a column changed, by the id of the sample."""
    family = moved(of[0])
    if family is None:
        told = [change_of(each.case, each.family.name) if each.is_of_variant else "" for each in of]
    else:
        sides = [both(each.case, family) for each in of]
        told = uniform(family, of, [None if None in pair else Shown(pair[1], pair[0]) for pair in sides])
    return {id(each): text for each, text in zip(of, told, strict=True)}
