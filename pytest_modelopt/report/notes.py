"""What there is to say about models and the whole run: notes, each said once with the variants that it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pytest_modelopt.budgets.repeats import told_repeat
from pytest_modelopt.figures import format_bytes
from pytest_modelopt.record.model import Case, Measurement, Record
from pytest_modelopt.record.outcome import not_run
from pytest_modelopt.report.conditions import disturbances, oddities
from pytest_modelopt.report.item import Item
from pytest_modelopt.report.plain import plain_line

_NAMES_SHOWN = 10


def notes(record: Record) -> list[Item]:
    """What holds for models and for the whole run, in the order in which it is told."""
    return [
        *_not_run(record),
        *_disturbed(record),
        *_notes(record),
        *_repeats(record),
        *_process_memory(record),
        *_reserved(record),
        *_unmeasured(record),
    ]


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


def _repeats(record: Record) -> Iterator[Item]:
    """Variants that answer differently each time. Where the doctor says that of a case, it is said."""
    about: dict[tuple[str, str], list[str]] = {}
    for case in record.cases:
        if any(finding.rule == "answers-vary" for finding in case.findings):
            continue
        for measurement in _measurements(case):
            if measurement.repeat is not None:
                _add(about, (case.model, told_repeat(case, measurement)), _variant(measurement))
    for (model, told), variants in about.items():
        name = plain_line(model)
        text = (
            f"{name} ({_enumerated(variants)}): answers differently each time: {told}; its score and flips are those "
            "of the first pass"
        )
        yield Item("info", "NOTE", f"{name}: answers differ each time", text, model=model)


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
                if figure == "slices":  # a limit that needs them says why there are none; else nobody asked
                    continue
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
