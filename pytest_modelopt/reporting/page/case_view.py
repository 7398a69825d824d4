"""All that the page says of one case: plain values, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.derived import Derived
from pytest_modelopt.limits.slices import slice_rows, worst_first
from pytest_modelopt.reporting.changed_answers import Columns, counts, counts_right
from pytest_modelopt.reporting.columns import Shown, alike
from pytest_modelopt.reporting.item import Item, each_once
from pytest_modelopt.reporting.messages.figures import in_points
from pytest_modelopt.reporting.messages.findings import format_finding
from pytest_modelopt.reporting.messages.slices import slice_title
from pytest_modelopt.reporting.names import case_name, on_machine, sides
from pytest_modelopt.reporting.page.charts import Chart
from pytest_modelopt.reporting.page.limit_chart import limit_chart
from pytest_modelopt.reporting.page.pairs_chart import pairs_chart
from pytest_modelopt.reporting.page.uniform import both, moved, uniform
from pytest_modelopt.reporting.samples import Sample
from pytest_modelopt.reporting.sentences import told_findings
from pytest_modelopt.results.case import ORIGINAL, Case
from pytest_modelopt.results.figures import format_bytes, format_count, format_percentage
from pytest_modelopt.results.outcome import CaseOutcome, case_outcome, unjudged_limits, warnings
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Limit, Verdict

Tone = Literal["bad", "unsure", "good", "plain"]
_TONES: dict[CaseOutcome, Tone] = {
    "error": "bad",
    "fail": "bad",
    "inconclusive": "unsure",
    "warn": "unsure",
    "pass": "good",
}
_ROWS_SHOWN = 200
_TIMED = {"timing": "One call", "loading": "Loading, in fresh processes", "phases.prefill": "The prompt"}


@dataclass(frozen=True)
class LimitView:
    limit: Limit
    bound: str
    """'at most 3 MiB'."""
    outcome: str
    tone: Tone
    figure: str
    interval: str
    chart: Chart | None


@dataclass(frozen=True)
class Figure:
    """One figure of both sides."""

    title: str
    before: str
    after: str
    change: str


@dataclass(frozen=True)
class Timed:
    title: str
    chart: Chart
    told: str


@dataclass(frozen=True)
class CaseView:
    case: Case
    name: str
    anchor: str
    outcome: str
    tone: Tone
    sides: tuple[str, str]
    items: tuple[tuple[Item, list[str]], ...]
    """With what stands below each."""
    why: tuple[str, ...]
    findings: tuple[str, ...]
    """Those that no item tells."""
    limits: tuple[LimitView, ...]
    figures: tuple[Figure, ...]
    timed: tuple[Timed, ...]
    layers: Columns | None
    steps: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Of a chain: the recipe, what it changed, its notes."""
    faults: Columns | None
    answers: str
    changed: Columns | None
    slices: Columns | None


def tone_of(outcome: CaseOutcome) -> Tone:
    return _TONES.get(outcome, "plain")


def _in_words(case: Case, outcome: CaseOutcome) -> str:
    """'pass, 2 warnings', without the sign that the page sets before it."""
    if outcome == "warn":
        return f"pass, {format_count(warnings(case), 'warning')}"
    waived = sum(verdict.outcome == "waived" for verdict in case.verdicts)
    if outcome == "pass" and waived:
        return f"pass, {waived} waived"
    return outcome.upper() if outcome in ("fail", "error") else outcome


def case_view(
    record: Record, case: Case, anchor: str, items: Sequence[Item], figures: Mapping[str, Sample]
) -> CaseView:
    """`items`: what is to say about it; `figures`: its samples by the name of their family."""
    outcome = case_outcome(case, record.strict)
    told = {line for item in items for line in (*item.told_below, *item.why)}
    findings = dict.fromkeys(format_finding(case, each) for each in told_findings(case))
    return CaseView(
        case=case,
        name=f"{case_name(case)}{on_machine(record, case)}",
        anchor=anchor,
        outcome=_in_words(case, outcome),
        tone=tone_of(outcome),
        sides=sides(case),
        items=tuple(each_once(items, lambda item: (*item.told_below, *item.changed))),
        why=tuple(dict.fromkeys(line for item in items for line in item.why)),
        findings=tuple(each for each in findings if each not in told and not any(each in item.text for item in items)),
        limits=(
            *(_limit(case, verdict) for verdict in case.verdicts),
            *(
                LimitView(each, _bound(case, each), "not judged", "bad", "-", "", None)
                for each in unjudged_limits(case)
            ),
        ),
        figures=tuple(_figure(case, each) for each in figures.values()),
        timed=tuple(_timed(case)),
        layers=_layers(case),
        steps=_steps(case),
        faults=_faults(case),
        answers=counts(case),
        changed=_changed(case),
        slices=_slices(case),
    )


# --- limits and figures ----------------------------------------------------------------------------------------------


def _bound(case: Case, limit: Limit) -> str:
    kind = LIMITS.get(limit.name)
    word = "" if kind is None else "at most " if kind.bounds_from_above(case) else "at least "
    return f"{word}{limit.text}"


def _limit(case: Case, verdict: Verdict) -> LimitView:
    tones: dict[str, Tone] = {"pass": "good", "fail": "bad", "not measured": "bad"}
    tone: Tone = tones.get(verdict.outcome, "unsure")
    if tone == "bad" and verdict.limit.level == "warn":
        tone = "unsure"
    figure, interval = "-", ""
    kind, bound = LIMITS.get(verdict.limit.name), _bound(case, verdict.limit)
    if kind is not None and verdict.measured is not None:
        unit_interval = in_points(case, verdict.limit)
        figure = kind.format(verdict.measured, unit_interval=unit_interval)
        ends = [
            word if end is None else kind.format(end, unit_interval=unit_interval)
            for word, end in (("no lower bound", verdict.low), ("no upper bound", verdict.high))
        ]
        interval = f"{ends[0]} to {ends[1]}" if (verdict.low, verdict.high) != (None, None) else ""
    between = f", between {interval}" if interval else ""
    label = f"{verdict.limit.name} {bound}: {figure} measured{between}, {verdict.outcome}"
    outcome = f"{verdict.outcome} (only warns)" if verdict.limit.level == "warn" else verdict.outcome
    return LimitView(verdict.limit, bound, outcome, tone, figure, interval, limit_chart(case, verdict, label))


def _figure(case: Case, sample: Sample) -> Figure:
    """With what it was at the other side, where that has one by itself or a latency."""
    family = moved(sample)
    if family is None:
        sides: tuple[float | None, float | None] = (both(case, sample.family)[0], sample.value)
        change = change_of(case, sample.family.name)
    else:
        sides, change = both(case, family), sample.text
    shown = family or sample.family
    texts = uniform(shown, [sample], [None if each is None else Shown(each) for each in sides])
    return Figure(shown.title, texts[0], texts[1], change)


def change_of(case: Case, name: str) -> str:
    """'+3.1%': the share by which bytes differ from those of the other side; '' of other figures, and where there is
    no other side."""
    figures = Derived(case)
    if case.base is None and case.recipe == ORIGINAL:
        return ""
    grown = {"memory_bytes": figures.memory_growth, "size_bytes": figures.size_growth}.get(name)
    if grown is None:
        return ""
    return f"{'+' if grown > 0 else ''}{format_percentage(grown)}"


def _timed(case: Case) -> list[Timed]:
    found = []
    for name, timing in case.timings.items():
        drawn = pairs_chart(timing, sides(case), with_figures=name != "loading") if timing.pairs else None
        if drawn is not None:
            found.append(Timed(_TIMED.get(name, "The steps that follow"), *drawn))
    return found


# --- what changed ----------------------------------------------------------------------------------------------------


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Columns | None:
    """None where it has no row."""
    shown = tuple(rows[:_ROWS_SHOWN])
    return Columns(headers, shown, len(rows) - len(shown)) if rows else None


def _layers(case: Case) -> Columns | None:
    if case.coverage is None:
        return None
    ordered = sorted(case.coverage.layers, key=lambda layer: -layer.weight_bytes)
    weights = alike([layer.weight_bytes for layer in ordered], "bytes")
    changed = alike([_share(layer.changed_bytes, layer.weight_bytes) for layer in ordered], "percentage")
    worked = alike([_share(each.changed_multiply_adds, each.multiply_adds) for each in ordered], "percentage")
    rows = [
        (
            layer.name,
            layer.type,
            weight,
            share,
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "-",
            by_changed,
        )
        for layer, weight, share, by_changed in zip(ordered, weights, changed, worked, strict=True)
    ]
    return _table(("layer", "class", "weights", "changed", "multiply-adds", "by changed weights"), rows)


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if whole and part is not None else None


def _steps(case: Case) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    steps = case.coverage.steps if case.coverage is not None else ()
    return tuple(
        (each.recipe, f"{format_bytes(each.changed_bytes)} of {format_bytes(each.weight_bytes)}", each.notes)
        for each in steps
    )


def _faults(case: Case) -> Columns | None:
    """Layers through which the recipe breaks a limit on answers."""
    seen = case.variant.observations if case.variant is not None else None
    at_fault = seen.layers_at_fault if seen is not None else None
    return None if at_fault is None else _table(("layer", "class"), [*at_fault.layers.items()])


# --- answers ---------------------------------------------------------------------------------------------------------


def _changed(case: Case) -> Columns | None:
    listed = case.agreement.changed if case.agreement is not None else None
    if listed is None:
        return None
    columns = [listed.index, listed.before, listed.after]
    headers = ["example", "before", "after"]
    if listed.target is not None:
        columns.insert(1, listed.target)
        headers.insert(1, "target")
    return _table(tuple(headers), [tuple(map(str, row)) for row in zip(*columns, strict=True)])


def _slices(case: Case) -> Columns | None:
    """Of all slices, the worst first; those that have no score come last."""
    if case.slices is None:
        return None
    rows = slice_rows(case.slices)
    counted = counts_right(case) and case.slices.right_to_wrong is not None
    ordered = [*worst_first(rows), *(row for row in rows if row.drop is None)]
    drops = [None if row.drop is None else float(row.drop) for row in ordered]
    told = [
        (
            slice_title(case.slices, row.name),
            f"{row.examples:,}",
            *((f"{row.lost:,}", f"{row.won:,}") if counted and row.lost is not None and row.won is not None else ()),
            drop,
        )
        for row, drop in zip(ordered, alike(drops, "points", in_points=in_points(case, None)), strict=True)
    ]
    return _table(("slice", "examples", *(("right to wrong", "wrong to right") if counted else ()), "drop"), told)
