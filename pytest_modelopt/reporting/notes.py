"""What there is to say about models and the whole run: notes, each said once with the variants that it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

from pytest_modelopt.judging.waivers import waiver_uses
from pytest_modelopt.limits.latency import speedup_of
from pytest_modelopt.reporting.base_summary import format_forbidden
from pytest_modelopt.reporting.generation_notes import generation_notes
from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.messages.figures import format_repeat
from pytest_modelopt.reporting.messages.waivers import format_waiver_use
from pytest_modelopt.reporting.names import against, case_name, first_names, on_machine, sides, variant_name
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.reporting.target_notes import target_notes
from pytest_modelopt.reporting.timing_conditions import disturbances, oddities
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_bytes, format_count, format_factor
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.run_outcome import run_outcome
from pytest_modelopt.results.workload import at_workload

CORRECTED = 0.01
"""Of a speedup, as a logarithm: by how much less nobody is told."""
_OF_THE_CALL = ("memory", "process_memory", "timing")


def notes(record: Record) -> list[Item]:
    """What holds for the whole run and for models, in the order in which it is told."""
    return [*run_notes(record), *waiver_notes(record), *machine_notes(record), *model_notes(record)]


def run_notes(record: Record) -> list[Item]:
    """What holds for the whole run: what is missing from it, and under what conditions its parts were compared."""
    return [*_missing(record), *_how_it_went(record), *_merged(record), *_against(record), *_base_notes(record)]


def model_notes(record: Record) -> list[Item]:
    """What holds for models, and how their figures were measured."""
    return [
        *generation_notes(record),
        *_notes(record),
        *_unlike_class(record),
        *_repeats(record),
        *_process_memory(record),
        *_reserved(record),
        *_unmeasured(record),
    ]


def waiver_notes(record: Record) -> list[Item]:
    """Waivers that no limit needs any more. Those that a limit needs are told with its verdict. A limit may need its
    waiver on the machines of another target."""
    if record.targets and not record.other_machines:
        return []
    return [
        Item("info", "NOTE", plain_line(f"{use.case}: an unused waiver"), plain_line(format_waiver_use(use)))
        for use in waiver_uses(record)
        if use.state == "unused"
    ]


def machine_notes(record: Record) -> list[Item]:
    """What others, and the workers themselves, did to comparisons while they were timed: one line for each kind. Rows
    of tables say which were disturbed."""
    return [*_disturbed(record), *_corrected(record), *_odd(record)]


# --- the run ---------------------------------------------------------------------------------------------------------


def _missing(record: Record) -> Iterator[Item]:
    """What ran of what was known: each reason for which a run is red beside its cases, and what it left out."""
    run = run_outcome(record)
    interrupted = _INTERRUPTED if record.merged is None else _JOB_INTERRUPTED
    if run.never_ran:
        count = format_count(len(run.never_ran), "planned case")
        what = "not run" if record.merged is None else "measured by no job"
        text = f"{count} {'was' if len(run.never_ran) == 1 else 'were'} {what}: {first_names(run.never_ran)}"
        yield _failure(f"{count} {what}", text if record.complete else f"{text}; {interrupted}")
    elif not record.complete:
        yield _failure("the run was interrupted", interrupted)
    if record.uncollected:
        count = format_count(len(record.uncollected), "file")
        names = first_names(record.uncollected)
        yield _failure(
            f"{count} could not be collected",
            f"{count} could not be collected, so what it measures is unknown: {names}; pytest says above what is "
            "wrong with it",
        )
    for what, left_out, way in (
        ("deselected", run.deselected, "take the paths, `-k`, `-m` and `--deselect` away"),
        ("skipped", run.skipped, "take the skip away, or say `xfail(run=False)` of a case that is not to pass here"),
    ):
        if left_out:
            count = f"{len(left_out)} of {format_count(run.known, 'case')}"
            text = f"{count} {'was' if len(left_out) == 1 else 'were'} {what}: {first_names(left_out)}"
            if "not whole" in run.causes:
                told = f"this run is meant to be whole (--modelopt-whole): {way}"
                yield _failure(f"{count} {what}", f"{text}; {told}")
            else:
                yield Item("info", "NOTE", f"{count} {what}", text)
    yield from target_notes(record)
    if "loosened" in run.causes:
        yield _failure("limits became less strict", format_forbidden(record))
    if "nothing measured" in run.causes:
        yield _failure(
            "nothing was measured", "nothing was measured, so no budget is known to hold: pytest's own output says why"
        )


def _failure(title: str, text: str) -> Item:
    return Item("error", "FAIL", title, text, excess=math.inf)


_INTERRUPTED = "the run was interrupted before its end, so cases may be missing here: run it again"
_JOB_INTERRUPTED = "a job was interrupted before its end, so cases may be missing here: run that job again"


def _how_it_went(record: Record) -> Iterator[Item]:
    for note in record.notes:
        yield Item("info", "NOTE", "machines of the fleet", plain_line(note))


def _merged(record: Record) -> Iterator[Item]:
    if record.merged is not None:
        text = f"put together from the records of {format_count(record.merged.jobs, 'job')}"
        for told in (text, *record.merged.notes, *_on_fewer_machines(record)):
            yield Item("info", "NOTE", "merged records", plain_line(told))


def _on_fewer_machines(record: Record) -> Iterator[str]:
    """Where some cases were measured on several machines, as by a job for each platform, but others were not."""
    machines: dict[str, set[int]] = {}
    for case in record.cases:
        machines.setdefault(case.id, set()).add(case.machine)
    most = max(map(len, machines.values()), default=0)
    fewer = [name for name, found in machines.items() if len(found) < most]
    if fewer:
        were = f"{format_count(len(fewer), 'case')} {'was' if len(fewer) == 1 else 'were'}"
        yield (
            f"{were} measured on fewer than the {most} machines of others: {first_names(fewer)}; where each machine "
            "runs every case, a job is missing"
        )


def _against(record: Record) -> Iterator[Item]:
    for note in record.against.notes if record.against is not None else ():
        yield Item("info", "NOTE", "the comparison with the base", plain_line(note))


def _base_notes(record: Record) -> Iterator[Item]:
    """What should be known about single comparisons with the base, each said once with the variants it is about."""
    about: dict[tuple[str, str], dict[str, None]] = {}
    for case in record.cases:
        for note in case.base.notes if case.base is not None else ():
            _add(about, (f"{case.model}{against(case)}", note), case.recipe)
    for (name, note), variants in about.items():
        text = f"{plain_line(name)} ({first_names(variants)}): {plain_line(note)}"
        yield Item("info", "NOTE", f"{plain_line(name)}: a note", text)


# --- the machine -----------------------------------------------------------------------------------------------------


def _disturbed(record: Record) -> Iterator[Item]:
    """One note for all comparisons that were timed on a disturbed machine, with the figures of the worst."""
    timed = [case for case in record.cases if case.timing is not None and case.timing.pairs]
    disturbed = [(case, found) for case in timed if case.timing and (found := disturbances(case.timing))]
    if disturbed:
        worst, found = max(disturbed, key=lambda each: each[0].timing.delayed if each[0].timing else 0.0)
        title = f"{len(disturbed)} of {format_count(len(timed), 'comparison')} timed on a disturbed machine"
        text = f"busy: {title}, which changes times and no other figure"
        yield Item("info", "NOTE", title, f"{text}; at worst, {_case(record, worst)}: {', '.join(found)}")


def _corrected(record: Record) -> Iterator[Item]:
    """One note for all comparisons whose figures are corrected to the machine's best state, with the largest one."""
    timed = [case for case in record.cases if case.error is None and case.timing is not None and case.timing.pairs]
    estimates = [(speedup_of(each), case) for case in timed for each in case.timings.values() if each.pairs]
    corrected = [each for each in estimates if abs(math.log(each[0].correction)) >= CORRECTED]
    if corrected:
        most, case = max(corrected, key=lambda each: abs(math.log(each[0].correction)))
        title = f"{len(corrected)} of {format_count(len(timed), 'comparison')} corrected to the machine's best state"
        change = f"{format_factor(most.figure / most.correction)} as timed, {format_factor(most.figure)} at its best"
        text = f"state: {title}, by what earlier runs in other states show; at most, {_case(record, case)}: {change}"
        yield Item("info", "NOTE", title, text)


def _odd(record: Record) -> Iterator[Item]:
    """What workers did against the conditions under which they were to be timed, once for all cases that did."""
    about: dict[str, dict[str, None]] = {}
    for case in record.cases:
        for text in oddities(case.timing, sides(case)) if case.timing is not None and case.timing.pairs else ():
            _add(about, text, _case(record, case))
    for text, names in about.items():
        yield Item("info", "NOTE", "workers that did not keep to their turns", f"{first_names(names)}: {text}")


# --- models ----------------------------------------------------------------------------------------------------------


def _notes(record: Record) -> Iterator[Item]:
    """Notes about models, each said once with the variants that it is about."""
    about: dict[tuple[str, str], dict[str, None]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            for note in measurement.notes:
                _add(about, (case.model, note), variant_name(case, measurement))
    for (model, note), variants in about.items():
        text = f"{plain_line(model)} ({first_names(variants)}): {plain_line(note)}"
        yield Item("info", "NOTE", f"{plain_line(model)}: a note", text)


def _unlike_class(record: Record) -> Iterator[Item]:
    """Layers that recipes left alone since they do not behave like their class, once for a model.

    Under a limit that is not kept the recipe's own notes say it.
    """
    about: dict[tuple[str, tuple[str, ...], str], dict[str, None]] = {}
    for case in record.cases:
        all_hold = all(verdict.outcome in ("pass", "waived") for verdict in case.verdicts)
        if case.coverage is None or case.error is not None or not all_hold:
            continue
        for step in case.coverage.steps:
            for why in dict.fromkeys(step.unlike_class.values()):
                names = tuple(name or "the model itself" for name, reason in step.unlike_class.items() if reason == why)
                _add(about, (case.model, names, why), case.recipe)
    for (model, names, why), recipes in about.items():
        name = plain_line(model)
        are = "is left as it is" if len(names) == 1 else "are left as they are"
        quoted = first_names([f"`{each}`" for each in names])  # a layer's name may be a number, which is no count
        text = (
            f"{name} ({first_names(recipes)}): {format_count(len(names), 'layer')} {are}, {quoted}: {plain_line(why)}"
        )
        yield Item("info", "NOTE", f"{name}: layers left as they are", text)


def _repeats(record: Record) -> Iterator[Item]:
    """Variants that answer differently each time. Where the doctor says that of a case, it is said."""
    about: dict[tuple[str, str], dict[str, None]] = {}
    for case in record.cases:
        if any(finding.rule == "answers-vary" for finding in case.findings):
            continue
        for measurement in _measurements(case):
            if measurement.repeat is not None:
                _add(about, (case.model, format_repeat(case, measurement)), _variant(record, case, measurement))
    for (model, told), variants in about.items():
        name = plain_line(model)
        text = (
            f"{name} ({first_names(variants)}): answers differently each time: {told}; its score and flips are those "
            "of the first pass"
        )
        yield Item("info", "NOTE", f"{name}: answers differ each time", text)


def _process_memory(record: Record) -> Iterator[Item]:
    """The process memory of each model's variants, with its meter and its spread."""
    about: dict[tuple[str, str], dict[str, None]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            process = measurement.process_memory
            if process is None or process.bytes is None:
                continue
            count = len(process.peaks_bytes)
            runs = f"{count} fresh process{'' if count == 1 else 'es'}"
            spread = f"{format_bytes(process.bytes)} within {format_bytes(process.spread_bytes)}"
            runtime = f" on {plain_line(measurement.runtime)}" if measurement.runtime else ""
            if measurement.hidden_bytes:
                runtime = f", of which torch's allocator does not see {format_bytes(measurement.hidden_bytes)},"
            _add(
                about,
                (case.model, f"{process.meter}, {runs} each"),
                f"{_row(record, case, measurement)}{runtime} {spread}",
            )
    for (model, meter), variants in about.items():
        name = plain_line(model)
        text = f"{name}: process memory by {meter}: {first_names(variants)}"
        yield Item("info", "NOTE", f"{name}: process memory", text)


def _reserved(record: Record) -> Iterator[Item]:
    """Beside the peak of what was in use on a GPU: what torch's allocator had taken from it."""
    about: dict[str, dict[str, None]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            if measurement.reserved_bytes is not None:
                _add(
                    about,
                    case.model,
                    f"{_row(record, case, measurement)} {format_bytes(measurement.reserved_bytes)}",
                )
    for model, variants in about.items():
        text = f"{plain_line(model)}: reserved on the GPU by torch's allocator: {first_names(variants)}"
        yield Item("info", "NOTE", f"{plain_line(model)}: reserved memory", text)


def _unmeasured(record: Record) -> Iterator[Item]:
    about: dict[tuple[str, str, str], dict[str, None]] = {}
    for case in record.cases:
        for measurement in _measurements(case):
            variant = _variant(record, case, measurement)
            for figure, reason in measurement.unmeasured.items():
                if figure == "slices":  # a limit that needs them says why there are none; else nobody asked
                    continue
                told = _row(record, case, measurement) if figure in _OF_THE_CALL else variant
                _add(about, (case.model, figure, reason), told)
            if measurement.observations is not None:
                for fact, reason in measurement.observations.unobserved.items():
                    _add(about, (case.model, f"what the doctor looks at ({fact})", reason), variant)
    for (model, figure, reason), variants in about.items():
        name, what = plain_line(model), plain_line(figure).replace("_", " ")
        text = f"{name} ({first_names(variants)}): {what} was not measured: {plain_line(reason)}"
        yield Item("info", "NOTE", f"{name}: {what} was not measured", text)


def _measurements(case: Case) -> Iterator[Measurement]:
    """The measurements that a report may speak of: of a case in error, its message says it all."""
    if case.reference is not None:
        yield case.reference
    if case.variant is not None and case.error is None:
        yield case.variant


def _variant(record: Record, case: Case, measurement: Measurement) -> str:
    """For what may differ from machine to machine."""
    return f"{variant_name(case, measurement)}{on_machine(record, case)}"


def _row(record: Record, case: Case, measurement: Measurement) -> str:
    """For what may differ from workload to workload, too."""
    name = at_workload(variant_name(case, measurement), plain_line(case.workload))
    return f"{name}{on_machine(record, case)}"


def _case(record: Record, case: Case) -> str:
    return f"{case_name(case)}{on_machine(record, case)}"


_Key = TypeVar("_Key")


def _add(about: dict[_Key, dict[str, None]], key: _Key, variant: str) -> None:
    about.setdefault(key, {})[variant] = None
