"""The table of one model's variants against the same variants at a base, and what changed since: figure by figure."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_modelopt.limits.latency import interval_of, speedup_of
from pytest_modelopt.reporting.cells import (
    NOT_MEASURED,
    drop_cell,
    flips_cell,
    latency_cell,
    memory_cell,
    or_dash,
    score_cell,
    size_cell,
    slowdown_cell,
    timed,
)
from pytest_modelopt.reporting.names import machine_title
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.table import (
    TableBlock,
    failed_after_measuring,
    measured,
    metric_of,
    scored,
    verdict_cell,
)
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.outcome import CaseOutcome, case_outcome, is_red
from pytest_modelopt.results.record import Record

HEADERS = ("recipe", "memory", "size", "latency", "score", "flips", "verdict")
ALIGNMENTS = ("left", "right", "right", "right", "right", "right", "left")


@dataclass(frozen=True)
class AgainstRow:
    """One variant at head, each figure with what became of it since the base."""

    recipe: str
    memory: str
    size: str
    latency: str
    score: str
    flips: str
    verdict: str
    case: Case
    outcome: CaseOutcome

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in HEADERS)


class AgainstBlock(TableBlock[AgainstRow]):
    """One model against its base: a row for each variant, the one without a recipe included."""

    names = HEADERS
    alignments = ALIGNMENTS


def against_block(record: Record, cases: list[Case]) -> AgainstBlock:
    """The table of cases that have all in common that `table.grouped` groups by, their base included."""
    first = cases[0]
    assert first.base is not None
    machine = machine_title(record, first.machine)
    metric = metric_of(cases)
    model, base = plain_line(first.model), plain_line(first.base.name)
    return AgainstBlock(
        title=f"{model} against {base}" + (f" on {machine}" if machine else ""),
        model=model,
        metric=None if metric is None else plain_line(metric),
        rows=tuple(_row(record, case) for case in cases),
        conditions=f"{scored(cases)}; {measured(cases)}; in brackets: since {base}",
        is_red=any(is_red(case, record.strict) for case in cases),
    )


def _row(record: Record, case: Case) -> AgainstRow:
    outcome = case_outcome(case, record.strict)
    recipe, verdict = plain_line(case.row), _verdict(case, outcome)
    if outcome == "new" or (outcome == "error" and not failed_after_measuring(case)):
        return AgainstRow(recipe, *(5 * (NOT_MEASURED,)), verdict, case, outcome)
    return AgainstRow(
        recipe=recipe,
        memory=memory_cell(case),
        size=size_cell(case),
        latency=_latency(case, record.timed_limits),
        score=_score(case),
        flips=flips_cell(case),
        verdict=verdict,
        case=case,
        outcome=outcome,
    )


def _verdict(case: Case, outcome: CaseOutcome) -> str:
    assert case.base is not None
    word = verdict_cell(case, outcome)
    if case.base.status == "failed" and outcome != "error":
        return "no base: it fails" if outcome != "fail" else f"{word}, no base: it fails"
    if case.base.status == "unpaired" and outcome != "error":
        return "not compared" if outcome != "fail" else f"{word}, not compared"
    if case.base.status == "unusable" and outcome != "error":
        return "no base: it cannot run" if outcome != "fail" else f"{word}, no base: it cannot run"
    return word


def _latency(case: Case, timed_limits: int) -> str:
    timing = timed(case)
    if timing is None:
        return NOT_MEASURED
    return f"{latency_cell(timing)} ({slowdown_cell(timing, timed_limits)})"


def _score(case: Case) -> str:
    score = or_dash(lambda number: score_cell(case.metric, number), case.variant.score if case.variant else None)
    loss = case.drop
    if loss is None:
        return score
    word = "" if loss == 0 else "loss " if loss > 0 else "gain "
    return f"{score} ({word}{drop_cell(case, abs(loss))})"


# --- what changed ----------------------------------------------------------------------------------------------------


FIGURES = ("memory", "size", "score", "answers", "latency")


def compared(case: Case) -> tuple[str, ...]:
    """Which of `FIGURES` the base has, so that something can be said of them."""
    original = case.reference
    known = {
        "memory": bool(case.memory_peaks_bytes(original)),
        "size": original is not None and original.size_bytes is not None,
        "score": original is not None and original.score is not None,
        "answers": case.agreement is not None,
        "latency": timed(case) is not None,
    }
    return tuple(name for name in FIGURES if known[name])


def changes(case: Case, timed_limits: int) -> tuple[str, ...]:
    """Which of the figures that the base has are others at head.

    Exact figures changed where they differ at all, memory of fresh processes where its runs lie apart, and latency
    where the interval excludes that nothing changed. A figure that head lost has changed.
    """
    differs = {
        "memory": _memory_changed(case),
        "size": _size_changed(case),
        "score": case.drop != 0.0,
        "answers": _answers_changed(case),
        "latency": _latency_changed(case, timed_limits),
    }
    return tuple(name for name in compared(case) if differs[name])


def _memory_changed(case: Case) -> bool:
    before, after = case.memory_peaks_bytes(case.reference), case.memory_peaks_bytes(case.variant)
    return not after or (bool(before) and (max(before) < min(after) or max(after) < min(before)))


def _size_changed(case: Case) -> bool:
    before, after = (side.size_bytes if side else None for side in (case.reference, case.variant))
    return before != after


def _answers_changed(case: Case) -> bool:
    found = case.agreement
    return found is not None and (found.flips, found.right_to_wrong, found.wrong_to_right) != (0, 0, 0)


def _latency_changed(case: Case, timed_limits: int) -> bool:
    timing = timed(case)
    if timing is None:
        return False
    low, high = interval_of(speedup_of(timing), timed_limits)
    return low > 1 or high < 1
