"""What there is to say about a record beside its tables: structured, and only rendered by each form of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pytest_modelopt.budgets.limits import FIGURES, LIMITS
from pytest_modelopt.figures import format_bytes, format_percentage
from pytest_modelopt.record.model import (
    Case,
    CaseError,
    Coverage,
    LayerCoverage,
    Limit,
    Measurement,
    Record,
    Stage,
    Verdict,
)
from pytest_modelopt.record.outcome import not_run, unjudged_limits
from pytest_modelopt.report.conditions import disturbances, oddities
from pytest_modelopt.report.plain import plain_line, plain_lines

Severity = Literal["error", "warning", "info"]
Label = Literal["ERROR", "FAIL", "INCONCLUSIVE", "WARN", "NOTE"]

_TYPES_SHOWN = 4
_NAMES_SHOWN = 10

_DOING: dict[Stage, str] = {
    "start": "starting its worker process",
    "read": "reading its data",
    "load": "loading the model or its data",
    "optimize": "applying the recipe",
    "size": "measuring its size",
    "memory": "measuring its memory",
    "score": "scoring it",
    "timing": "timing it",
    "limits": "reading its limits",
    "compare": "comparing it with the original",
}


@dataclass(frozen=True)
class Item:
    """One thing to say. All texts are plain: one line each, without control characters."""

    severity: Severity
    label: Label
    title: str
    """A few words that stand alone: 'digits-vit/int8-dynamic: max_memory is broken'."""
    text: str
    """The whole sentence."""
    found: tuple[str, ...] = ()
    """What the doctor found that explains the figure of this limit."""
    why: tuple[str, ...] = ()
    """The likely cause, and what else is known about the case; the same for all items of one case."""
    output: tuple[str, ...] = ()
    """The last lines that the worker printed."""
    model: str | None = None
    case_id: str | None = None
    file: str | None = None
    line: int | None = None
    excess: float = 0.0
    """How far beyond its limit, as a share of the limit; infinite where nothing was measured. For sorting only."""


def items(record: Record) -> list[Item]:
    """Everything to say: case by case in the record's order, then what holds for models and for the whole run."""
    told = [item for case in record.cases for item in case_items(case, record.strict)]
    told += [*_not_run(record), *_disturbed(record), *_notes(record), *_process_memory(record), *_reserved(record)]
    return [*told, *_unmeasured(record)]


def case_items(case: Case, strict: bool) -> list[Item]:
    """Everything to say about one case: its error, or its limits that were not kept, not decided or waived."""
    return list(_of_case(case, strict))


def _of_case(case: Case, strict: bool) -> Iterator[Item]:
    why = tuple(_explanation(case))
    if case.error is not None:
        yield _error(case, case.error, why)
    for verdict in case.verdicts:
        label = _label(verdict, strict)
        if label is not None:
            yield _verdict(case, verdict, label, () if label == "NOTE" else why)
    yield from _found_though_all_hold(case, strict)
    if case.error is None:
        for limit in unjudged_limits(case):
            name = plain_line(f"{case.name}: {limit.name}")
            yield Item(
                severity="error" if limit.level == "error" else "warning",
                label="FAIL" if limit.level == "error" else "WARN",
                title=f"{name} was not judged",
                text=f"{name} {plain_line(limit.text)} was not judged, which counts as broken."
                f" ({plain_line(limit.file)}:{limit.line})",
                model=case.model,
                case_id=case.id,
                file=limit.file,
                line=limit.line,
                excess=math.inf,
            )


def _error(case: Case, error: CaseError, why: tuple[str, ...]) -> Item:
    message = plain_lines(error.message)
    stated = case.limits[0] if case.limits else None
    return Item(
        severity="error",
        label="ERROR",
        title=f"{plain_line(case.name)}: error while {_DOING[error.stage]}",
        text=f"{plain_line(case.name)}: error while {_DOING[error.stage]}: {plain_line(message[0])}",
        why=(*(plain_line(line) for line in message[1:] if line.strip()), *why),
        output=tuple(plain_lines(error.output)) if error.output.strip() else (),
        model=case.model,
        case_id=case.id,
        file=stated.file if stated else None,
        line=stated.line if stated else None,
        excess=math.inf,
    )


def _label(verdict: Verdict, strict: bool) -> Label | None:
    if verdict.outcome == "pass":
        return None
    if verdict.outcome == "waived":
        return "NOTE"
    if verdict.limit.level == "warn":
        return "WARN"
    if verdict.outcome == "inconclusive" and not strict:
        return "INCONCLUSIVE"
    return "FAIL"


_IN_SHORT = {
    "fail": "is broken",
    "inconclusive": "is inconclusive",
    "not measured": "was not measured",
    "waived": "is waived",
}
_SEVERITY: dict[Label, Severity] = {
    "ERROR": "error",
    "FAIL": "error",
    "INCONCLUSIVE": "warning",
    "WARN": "warning",
    "NOTE": "info",
}


def _verdict(case: Case, verdict: Verdict, label: Label, why: tuple[str, ...]) -> Item:
    limit = verdict.limit
    return Item(
        severity=_SEVERITY[label],
        label=label,
        title=plain_line(f"{case.name}: {limit.name} {_IN_SHORT[verdict.outcome]}"),
        text=plain_line(verdict.sentence),
        found=() if label == "NOTE" else _found(case, limit),
        why=why,
        model=case.model,
        case_id=case.id,
        file=limit.file,
        line=limit.line,
        excess=_excess(verdict),
    )


def _excess(verdict: Verdict) -> float:
    if verdict.outcome == "inconclusive":
        return 0.0
    if verdict.measured is None:
        return math.inf
    distance = abs(verdict.measured - verdict.limit.value)
    return distance / abs(verdict.limit.value) if verdict.limit.value else math.inf


# --- what the doctor found --------------------------------------------------------------------------------------------


def _found(case: Case, limit: Limit) -> tuple[str, ...]:
    return tuple(plain_line(found.text) for found in case.findings if FIGURES.get(limit.name) in found.explains)


def _found_though_all_hold(case: Case, strict: bool) -> Iterator[Item]:
    """Findings that matter though no limit shows them: they may be why the limits hold."""
    told = [verdict.limit.name for verdict in case.verdicts if _label(verdict, strict) not in (None, "NOTE")]
    shown = {FIGURES.get(name) for name in told}
    for finding in case.findings:
        if finding.is_note and not shown.intersection(finding.explains):
            name = plain_line(case.name)
            yield Item(
                "info",
                "NOTE",
                title=f"{name}: {plain_line(finding.rule)}",
                text=f"{name}: {plain_line(finding.text)}",
                model=case.model,
                case_id=case.id,
            )


# --- why -------------------------------------------------------------------------------------------------------------


def _explanation(case: Case) -> Iterator[str]:
    disturbed = disturbances(case.timing) if case.timing is not None and case.error is None else []
    if disturbed and any(LIMITS[limit.name].kind == "timed" for limit in case.limits):
        yield f"timed on a disturbed machine: {', '.join(disturbed)}"
    coverage = case.coverage
    if coverage is None:
        return
    yield _changed(plain_line(case.recipe), coverage)
    for step in coverage.steps:
        if len(coverage.steps) > 1 and step.changed_bytes == 0:
            yield f"the step {plain_line(step.recipe)} changed nothing"
        for note in step.notes:
            yield f"{plain_line(step.recipe)}: {plain_line(note)}"


def _changed(recipe: str, coverage: Coverage) -> str:
    """What the recipe reached, and the layers that it left alone, largest first."""
    text = f"{recipe} changed {format_percentage(coverage.share)} of the weight bytes"
    if coverage.multiply_adds_share is not None:
        text += f" and {format_percentage(coverage.multiply_adds_share)} of the multiply-adds"
    untouched = _by_type(layer for layer in coverage.layers if layer.weight_bytes and not layer.changed_bytes)
    partly = _by_type(layer for layer in coverage.layers if 0 < layer.changed_bytes < layer.weight_bytes)
    if untouched:
        text += f"; left alone: {untouched}"
    if partly:
        text += f"; changed in part: {partly}"
    return text


def _by_type(layers: Iterable[LayerCoverage]) -> str:
    groups: dict[str, list[LayerCoverage]] = {}
    for layer in layers:
        groups.setdefault(plain_line(layer.type), []).append(layer)
    unchanged = {
        name: sum(layer.weight_bytes - layer.changed_bytes for layer in group) for name, group in groups.items()
    }
    names = sorted(groups, key=lambda name: (-unchanged[name], name))
    shown = [f"{len(groups[name])} {name} ({format_bytes(unchanged[name])})" for name in names[:_TYPES_SHOWN]]
    rest = names[_TYPES_SHOWN:]
    if rest:
        layers_left = sum(len(groups[name]) for name in rest)
        shown.append(f"{layers_left} other ({format_bytes(sum(unchanged[name] for name in rest))})")
    return ", ".join(shown)


# --- models and the run ----------------------------------------------------------------------------------------------


def _disturbed(record: Record) -> Iterator[Item]:
    """One note for all comparisons that were timed on a disturbed machine, with the figures of the worst."""
    timed = [case for case in record.cases if case.timing is not None and case.timing.pairs]
    disturbed = [(case, found) for case in timed if case.timing and (found := disturbances(case.timing))]
    if disturbed:
        worst, found = max(disturbed, key=lambda each: each[0].timing.delayed if each[0].timing else 0.0)
        title = f"{len(disturbed)} of {_count(len(timed), 'comparison')} timed on a disturbed machine"
        most = f"{plain_line(worst.name)}: " if len(disturbed) > 1 else ""
        names = _enumerated([case.name for case, _ in disturbed])
        yield Item("info", "NOTE", title, f"{title} ({most}{', '.join(found)}): {names}")
    for case in timed:
        assert case.timing is not None
        for text in oddities(case.timing):
            yield Item("info", "NOTE", f"{plain_line(case.name)}: a note", f"{plain_line(case.name)}: {text}")


def _not_run(record: Record) -> Iterator[Item]:
    missing = not_run(record)
    if missing:
        count = _count(len(missing), "planned case")
        text = f"{count} {'was' if len(missing) == 1 else 'were'} not run: {_enumerated(missing)}"
        yield Item(
            "warning",
            "WARN",
            f"{count} not run",
            text if record.complete else f"{text}; {_INTERRUPTED}",
            excess=math.inf,
        )
    elif not record.complete:
        yield Item("warning", "WARN", "the run was interrupted", _INTERRUPTED, excess=math.inf)


_INTERRUPTED = "the run was interrupted before its end, so this report is not the whole story"


def _notes(record: Record) -> Iterator[Item]:
    """Notes about models, each said once with the variants that it is about."""
    about: dict[tuple[str, str], list[str]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            for note in measurement.notes:
                _add(about, (case.model, note), _variant(measurement))
    for (model, note), variants in about.items():
        text = f"{plain_line(model)} ({_enumerated(variants)}): {plain_line(note)}"
        yield Item("info", "NOTE", f"{plain_line(model)}: a note", text, model=model)


def _process_memory(record: Record) -> Iterator[Item]:
    """The process memory of each model's variants, with its meter and its spread."""
    about: dict[tuple[str, str], list[str]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            process = measurement.process_memory
            if process is None or process.bytes is None:
                continue
            count = len(process.peaks_bytes)
            runs = f"{count} fresh process{'' if count == 1 else 'es'}"
            spread = f"{format_bytes(process.bytes)} within {format_bytes(process.spread_bytes)}"
            runtime = f" on {plain_line(measurement.runtime)}" if measurement.runtime else ""
            _add(about, (case.model, f"{process.meter}, {runs} each"), f"{_variant(measurement)}{runtime} {spread}")
    for (model, meter), variants in about.items():
        name = plain_line(model)
        text = f"{name}: process memory by {meter}: {_enumerated(variants)}"
        yield Item("info", "NOTE", f"{name}: process memory", text, model=model)


def _reserved(record: Record) -> Iterator[Item]:
    """Beside the peak of what was in use on a GPU: what torch's allocator had taken from it."""
    about: dict[str, list[str]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            if measurement.reserved_bytes is not None:
                _add(about, case.model, f"{_variant(measurement)} {format_bytes(measurement.reserved_bytes)}")
    for model, variants in about.items():
        text = f"{plain_line(model)}: reserved on the GPU by torch's allocator: {_enumerated(variants)}"
        yield Item("info", "NOTE", f"{plain_line(model)}: reserved memory", text, model=model)


def _unmeasured(record: Record) -> Iterator[Item]:
    about: dict[tuple[str, str, str], list[str]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            for figure, reason in measurement.unmeasured.items():
                _add(about, (case.model, figure, reason), _variant(measurement))
            if measurement.observations is not None:
                for fact, reason in measurement.observations.unobserved.items():
                    _add(about, (case.model, f"what the doctor looks at ({fact})", reason), _variant(measurement))
    for (model, figure, reason), variants in about.items():
        name, what = plain_line(model), plain_line(figure).replace("_", " ")
        text = f"{name} ({_enumerated(variants)}): {what} was not measured: {plain_line(reason)}"
        yield Item("info", "NOTE", f"{name}: {what} was not measured", text, model=model)


def _measurements(case: Case) -> Iterator[Measurement]:
    """The measurements that a report may speak of: of a case in error, its message says it all."""
    if case.original is not None:
        yield case.original
    if case.variant is not None and case.error is None:
        yield case.variant


def _variant(measurement: Measurement) -> str:
    return measurement.recipe or "original"


_Key = TypeVar("_Key")


def _add(about: dict[_Key, list[str]], key: _Key, variant: str) -> None:
    variants = about.setdefault(key, [])
    if variant not in variants:
        variants.append(variant)


def _enumerated(names: Sequence[str]) -> str:
    shown = [plain_line(name) for name in names[:_NAMES_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
