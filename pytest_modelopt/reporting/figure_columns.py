"""The columns of a model's table: the verdict, the recipe, and each figure that carries a limit or has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.kind import Unit
from pytest_modelopt.limits.latency import latencies_s
from pytest_modelopt.reporting.changes import changes
from pytest_modelopt.reporting.columns import Column, Mark, Shown, figure_column
from pytest_modelopt.reporting.messages.figures import in_points
from pytest_modelopt.reporting.table import Block, Row
from pytest_modelopt.reporting.timing_conditions import disturbances
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.verdicts import Figure as Kind
from pytest_modelopt.results.verdicts import Limit, Verdict

_ORDER = {kind: place for place, kind in enumerate(get_args(Kind))}
Side = Literal["before", "after"]
BUSY = "busy"
"""The word in the row of a comparison that was timed on a disturbed machine."""


@dataclass(frozen=True)
class Figure:
    """A figure that a table may show beside those that only a limit asks for."""

    name: str
    unit: Unit
    about: Kind
    """Where it stands: beside the limits on that kind of figure."""
    of: Callable[[Case, Side], float | None]
    """The original's or the base's, and the variant's; None: not measured, or by another meter."""
    limits: tuple[str, ...] = ()
    """Limits on the figure itself."""
    change: str = ""
    """Its name in `changes`."""
    is_timed: bool = False
    is_detail: tuple[bool, ...] = ()
    """In which tables a change of it is a detail: against the original (False), against a base (True)."""


def _memory(case: Case, side: Side) -> float | None:
    return None if case.foreign_runtimes else case.memory_bytes(_side(case, side))


def _process_memory(case: Case, side: Side) -> float | None:
    if case.foreign_runtimes:
        return case.memory_bytes(_side(case, side))
    is_asked = any(limit.name == "max_process_memory" for limit in case.limits)
    measured = _side(case, side) if is_asked else None
    return measured.process_memory.bytes if measured is not None and measured.process_memory is not None else None


def _size(case: Case, side: Side) -> float | None:
    measured = _side(case, side)
    return None if measured is None else measured.size_bytes


def _score(case: Case, side: Side) -> float | None:
    measured = _side(case, side)
    return None if measured is None else measured.score


def _flips(case: Case, side: Side) -> float | None:
    found = case.agreement
    return None if found is None or side == "before" else found.flips / found.examples


def _latency(case: Case, side: Side) -> float | None:
    timing = Derived(case).timing
    return None if timing is None else latencies_s(timing)[side == "after"]


def _speedup(case: Case, side: Side) -> float | None:
    return None if side == "before" else Derived(case).speedup


def _side(case: Case, side: Side) -> Measurement | None:
    return case.reference if side == "before" else case.variant


FIGURES = (
    Figure("memory", "bytes", "memory", _memory, ("max_memory",), "memory"),
    Figure("process memory", "bytes", "process_memory", _process_memory, ("max_process_memory",), "memory"),
    Figure("size", "bytes", "size", _size, ("max_size",), "size"),
    Figure("score", "score", "score", _score, ("min_accuracy",), "score"),
    Figure("flips", "percentage", "predictions", _flips, ("max_flips",), "answers", is_detail=(False,)),
    Figure("latency", "time", "timing", _latency, ("max_latency",), "latency", is_timed=True, is_detail=(False,)),
    Figure("speedup", "factor", "timing", _speedup, ("min_speedup",), "latency", is_timed=True, is_detail=(True,)),
)
_TOLD_BY = {"drop": ("score",), "loss": ("score",)}
"""Figures that need no column beside one that a limit has."""
_BY_LIMIT = {limit: figure.name for figure in FIGURES for limit in figure.limits}
_NAMES = {"max_accuracy_drop": "drop", "max_accuracy_loss": "loss"}
"""Of the columns of limits whose own names, without `max_` and `min_`, are long."""


def columns_of(block: Block, rows: Sequence[Row]) -> list[Column]:
    """The columns of some rows of a block: exact figures first, then timed ones."""
    table = _Rows(block, rows, [_judged(row.case) if row.case is not None and row.is_judged else {} for row in rows])
    asked = {name for found in table.judged for name in found}
    told = {each for name in asked for each in _TOLD_BY.get(name, ())}
    columns = [
        (figure.about, table.of_figure(figure))
        for figure in FIGURES
        if figure.name in asked or (figure.name not in told and table.has_changed(figure))
    ]
    others = asked - {figure.name for figure in FIGURES}
    columns += [(LIMITS[name].figure, table.of_limit(name)) for name in LIMITS if _column_name(name) in others]
    columns.sort(key=lambda each: (each[1].is_timed, _ORDER.get(each[0], len(_ORDER))))
    figures = [column for _, column in columns]
    busy = tuple(BUSY if row.case is not None and _is_busy(row.case) else "" for row in rows)
    if any(busy) and any(column.is_timed for column in figures):
        figures.append(Column("machine", busy, "left", is_timed=True))
    return [
        Column("verdict", tuple(row.verdict for row in rows), "left"),
        Column("recipe", tuple(row.recipe for row in rows), "left"),
        *figures,
    ]


_Judged: TypeAlias = dict[str, tuple[Limit, "Verdict | None"]]
"""A limit of a case, and its verdict, by the name of the column in which it stands."""


def _column_name(limit: str) -> str:
    return _BY_LIMIT.get(limit) or _NAMES.get(limit) or limit.partition("_")[2].replace("_", " ")


def _judged(case: Case) -> _Judged:
    """Where two limits of a case bound one figure, the one that is broken counts."""
    found: _Judged = {}
    verdicts = {verdict.limit.name: verdict for verdict in case.verdicts}
    for limit in (*(verdict.limit for verdict in case.verdicts), *case.limits):
        if limit.name not in LIMITS:
            continue
        is_of_process = limit.name == "max_memory" and case.foreign_runtimes
        name = "process memory" if is_of_process else _column_name(limit.name)
        verdict = verdicts.get(limit.name)
        if name not in found or (verdict is not None and verdict.is_red):
            found[name] = (limit, verdict)
    return found


@dataclass(frozen=True)
class _Rows:
    """Rows of a block, with the limits of each."""

    block: Block
    rows: Sequence[Row]
    judged: Sequence[_Judged]

    def has_changed(self, figure: Figure) -> bool:
        """Whether it is another one than the original's, or the base's, in one of the rows."""
        if self.block.is_against_base in figure.is_detail:
            return False
        return any(
            figure.change in changed
            and (figure.of(case, "before") is not None or figure.of(case, "after") is not None)  # by this meter
            for case, changed in self._changes
        )

    @cached_property
    def _changes(self) -> list[tuple[Case, tuple[str, ...]]]:
        """What has changed in each row but the original's."""
        cases = [row.case for row in self.rows if row.case is not None and row.has_figures and not row.is_original]
        return [(case, changes(case, self.block.timed_limits)) for case in cases]

    def of_figure(self, figure: Figure) -> Column:
        name = self.block.score_name if figure.name == "score" else figure.name
        shown = [self._shown(row, found, figure) for row, found in zip(self.rows, self.judged, strict=True)]
        cases = [case for row in self.rows for case in (row.case, *row.compared) if case is not None]
        limits = [found[figure.name][0] for found in self.judged if figure.name in found]
        points = any(in_points(case, limit) for case in cases for limit in (None, *limits))
        return figure_column(name, figure.unit, shown, in_points=points, is_timed=figure.is_timed)

    def of_limit(self, name: str) -> Column:
        """The column of a limit on a figure that is shown where it is limited only: what it was judged by."""
        kind, title = LIMITS[name], _column_name(name)
        shown = [
            self._limited(found[title], None) if title in found else None if row.is_original else Shown(None)
            for row, found in zip(self.rows, self.judged, strict=True)
        ]
        limited = [
            (row.case, found[title][0])
            for row, found in zip(self.rows, self.judged, strict=True)
            if row.case is not None and title in found
        ]
        points = any(in_points(case, limit) for case, limit in limited)
        return figure_column(title, kind.unit, shown, in_points=points, is_timed=kind.is_timed)

    def _shown(self, row: Row, judged: _Judged, figure: Figure) -> Shown | None:
        if row.is_original:
            return self._of_original(row, judged, figure)
        if row.case is None or not row.has_figures:
            return Shown(None)
        is_pair = figure.name == "latency" or (self.block.is_against_base and figure.change != "answers")
        before = figure.of(row.case, "before") if is_pair else None
        return self._limited(judged.get(figure.name), figure.of(row.case, "after"), before)

    def _of_original(self, row: Row, judged: _Judged, figure: Figure) -> Shown | None:
        """The original is measured once; its latency stands with each comparison, unless it has a case of its own."""
        own = None if row.case is None or figure.name == "speedup" else figure.of(row.case, "after")
        if figure.name in judged or (figure.is_timed and own is not None):
            return self._limited(judged.get(figure.name), own)
        if figure.is_timed or figure.change == "answers":
            return None
        measured = [before for case in row.compared if (before := figure.of(case, "before")) is not None]
        return Shown(measured[-1] if measured else None)

    def _limited(
        self, judged: tuple[Limit, Verdict | None] | None, figure: float | None, before: float | None = None
    ) -> Shown:
        """A figure beside its limit; of a limit that was judged, the figure that it was judged by."""
        if judged is None:
            return Shown(figure, before)
        limit, verdict = judged
        mark = _mark(limit, verdict, self.block.strict)
        after = verdict.measured if verdict is not None else None
        if after is None and not mark:
            after = figure
        is_waived = verdict is not None and verdict.outcome == "waived"
        return Shown(after, before, limit.value, mark, is_waived)


def _mark(limit: Limit, verdict: Verdict | None, strict: bool) -> Mark:
    outcome = "not measured" if verdict is None else verdict.outcome
    if outcome in ("pass", "waived"):
        return ""
    if limit.level == "warn":
        return "!"
    return "?" if outcome == "inconclusive" and not strict else "✗"


def _is_busy(case: Case) -> bool:
    timing = Derived(case).timing
    return timing is not None and bool(disturbances(timing))
