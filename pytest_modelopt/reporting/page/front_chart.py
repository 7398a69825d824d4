"""The front of memory, speed and drop: the variants of one model in one picture, with a table of its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_modelopt.limits.front import Found, dominates, drop_found, figure, speed_found
from pytest_modelopt.reporting.cells import drop_cells, interval_cells
from pytest_modelopt.reporting.columns import alike
from pytest_modelopt.reporting.names import machine_title
from pytest_modelopt.reporting.page.charts import Chart, Scale, Shape, Word, dot, line, scale, whisker
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import format_factor, format_percentage
from pytest_modelopt.results.metric import is_share
from pytest_modelopt.results.outcome import is_red
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.workload import at_workload

_WIDTH, _PANEL, _GAP = 720, 200, 26
_LEFT, _RIGHT, _TOP = 76, 700, 22
_MOST_POINTS = 200


@dataclass(frozen=True)
class Point:
    """One variant; `memory` is a share of the original's."""

    case: Case
    anchor: str
    memory: Found
    speed: Found | None
    drop: Found | None
    is_front: bool
    """Whether it keeps its limits, and no other one that does is for certain no worse in all and better in one."""
    cells: tuple[str, str, str] = ("", "", "")
    """Memory, speed and drop in words."""


@dataclass(frozen=True)
class Front:
    title: str
    points: tuple[Point, ...]
    """The least memory first; numbered from 1 in the picture."""
    chart: Chart


def fronts(record: Record, anchors: Mapping[int, str]) -> list[Front]:
    """One for each model, workload and machine that has two variants or more; `anchors` by the id of the case."""
    groups: dict[tuple[str, str, int], list[Case]] = {}
    for case in record.cases:
        if case.base is None and case.error is None and case.recipe != ORIGINAL:
            groups.setdefault((case.model, case.workload, case.machine), []).append(case)
    found = []
    for (model, workload, machine), cases in groups.items():
        points = _points(record, cases, anchors)[:_MOST_POINTS]
        chart = _chart(points)
        if len(points) > 1 and chart is not None:
            on = machine_title(record, machine)
            found.append(Front(at_workload(model, workload) + (f" on {on}" if on else ""), tuple(points), chart))
    return found


def _points(record: Record, cases: Sequence[Case], anchors: Mapping[int, str]) -> list[Point]:
    kept = [case for case in cases if not is_red(case, record.strict)]
    points = []
    for case in cases:
        memory = figure(case, "memory")
        if memory is None:
            continue
        is_front = any(case is each for each in kept) and not any(dominates(each, case) for each in kept)
        share = Found(memory.middle, memory.low, memory.high)
        points.append(Point(case, anchors[id(case)], share, speed_found(case), drop_found(case), is_front))
    points.sort(key=lambda point: point.memory.at)
    columns = (
        alike([each.memory.at for each in points], "percentage"),
        interval_cells([each.speed for each in points]),
        drop_cells([each.case for each in points]),
    )
    return [replace(each, cells=cells) for each, cells in zip(points, zip(*columns, strict=True), strict=True)]


def _chart(points: Sequence[Point]) -> Chart | None:
    x = scale((end for point in points for end in (point.memory.low, point.memory.high)), _LEFT, _RIGHT)
    if x is None:
        return None
    panels = [
        ("times as fast", [(number, each, each.speed) for number, each in enumerate(points, 1)], 1.0),
        ("drop", [(number, each, each.drop) for number, each in enumerate(points, 1)], 0.0),
    ]
    shapes: list[Shape] = []
    words: list[Word] = []
    top = float(_TOP)
    for label, of, neutral in panels:
        known = [(number, point, found) for number, point, found in of if found is not None]
        y = scale((neutral, *(end for *_, found in known for end in (found.low, found.high))), top + _PANEL, top)
        if not known or y is None:
            continue
        _panel(shapes, words, x, y, label, known, neutral)
        top += _PANEL + _GAP
    if not shapes:
        return None
    for tick in x.ticks(8):
        words.append(Word(x.at(tick), top - _GAP + 18, format_percentage(tick), "middle"))
    words.append(Word((_LEFT + _RIGHT) / 2, top + 12, "memory of a call, as a share of the original's", "middle"))
    best = sum(point.is_front for point in points)
    label = f"Memory, speed and drop of {len(points)} variants, of which {best} are on the front; a table follows."
    return Chart(label, _WIDTH, round(top) + 20, tuple(shapes), tuple(words))


def _panel(
    shapes: list[Shape],
    words: list[Word],
    x: Scale,
    y: Scale,
    label: str,
    known: Sequence[tuple[int, Point, Found]],
    neutral: float,
) -> None:
    """One figure over memory."""
    is_drop = label == "drop"
    in_points = is_drop and all(is_share(point.case.metric) for _, point, _ in known)
    for tick in y.ticks():
        text = f"{100 * tick:g} pp" if in_points else f"{tick:g}" if is_drop else format_factor(tick)
        shapes.append(Shape("grid", line(_LEFT, y.at(tick), _RIGHT, y.at(tick))))
        words.append(Word(_LEFT - 6, y.at(tick) + 4, text, "end"))
    shapes.append(Shape("axis", line(_LEFT, y.at(neutral), _RIGHT, y.at(neutral))))
    words.append(Word(_LEFT + 4, y.end - 8, label))
    for number, point, found in known:
        at, middle = x.at(point.memory.at), y.at(found.at)
        interval = whisker(x, y, point.memory.at, found) + (
            ""
            if point.memory.low == point.memory.high
            else line(x.at(point.memory.low), middle, x.at(point.memory.high), middle)
        )
        if interval:
            shapes.append(Shape("interval", interval))
        kind = "dot front" if point.is_front else "dot other"
        memory, speed, drop = point.cells
        title = f"{point.case.row}: {memory} of the memory, {speed}, drop {drop}"
        shapes.append(Shape(kind, dot(at, middle), title))
        words.append(Word(at + 7, middle - 6, str(number)))
