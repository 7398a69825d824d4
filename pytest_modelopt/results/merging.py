"""The records of several jobs put together: shards of one suite, or the same suite on several machines."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from pytest_modelopt.results.base import Against
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.figures import format_first
from pytest_modelopt.results.merge_info import Merged
from pytest_modelopt.results.outcome import is_red
from pytest_modelopt.results.record import Environment, Record

_NAMES_SHOWN = 10


class MergeError(ValueError):
    """Why records cannot be one, with their names."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """One case as one record holds it."""

    case: Case
    job: int
    """Index of its record."""
    machine: Environment | None


def merge(records: Sequence[tuple[str, Record]]) -> Record:
    """One record of several, each with the name by which messages call it.

    A case that different machines measured is kept once for each. Of a case that the same machine measured twice, as
    when a job was run again, the one of the record that was started later counts (of two that were started at the same
    time, the latter in `records`), and a note says what the other was. Two machines are the same where nothing that a
    record says of them differs.

    All cases that any of the jobs collected are planned in the merged record, so one that none of them ran is missing
    from it (`RunOutcome.never_ran`) and makes it red, as a job does that was interrupted. Where the jobs counted
    different numbers of timed limits, `timed_limits` is the largest, so timed limits have to be judged again.

    Raises:
        MergeError: for records of different revisions, bases, versions or budgets, for the same record twice, and where
            none of them knows a case.
    """
    _check(records)
    counted, notes = _counted(records)
    machines = _machines(counted)
    numbers = {machine: number for number, machine in enumerate(machines)}
    planned = _planned([record for _, record in records])
    order = {name: index for index, name in enumerate(planned)}
    cases = [replace(each.case, machine=numbers[_key(each.machine)]) for each in counted]
    cases.sort(key=lambda case: (order.get(_test(case.id), order.get(case.id, len(order))), case.machine))
    all_records = [record for _, record in records]
    environments = list(machines.values())
    return replace(
        all_records[0],
        started=min(all_records, key=_started).started,
        strict=any(record.strict for record in all_records),
        timed_limits=max(record.timed_limits for record in all_records),
        planned=planned,
        collected=planned,
        skipped=tuple(dict.fromkeys(name for record in all_records for name in record.skipped)),
        idle=tuple(dict.fromkeys(name for record in all_records for name in record.idle)),
        uncollected=tuple(dict.fromkeys(name for record in all_records for name in record.uncollected)),
        whole=True,
        no_loosening=any(record.no_loosening for record in all_records),
        complete=all(record.complete for record in all_records),
        cases=tuple(cases),
        environment=environments[0] if environments else all_records[0].environment,
        other_machines=tuple(environments[1:]),
        sensitivity=tuple(dict.fromkeys(each for record in all_records for each in record.sensitivity)),
        against=_against([record.against for record in all_records]),
        of_targets=(),
        notes=(),
        merged=Merged(
            jobs=sum(record.merged.jobs if record.merged else 1 for record in all_records),
            notes=(
                *(note for record in all_records if record.merged for note in record.merged.notes),
                *(f"{name}: {note}" for name, record in records for note in record.notes),
                *_interrupted(records),
                *notes,
            ),
        ),
    )


def _test(case_id: str) -> str:
    """The planned test of a case: the second and later cases of one have ids that end in `#2`, ..."""
    return case_id.rpartition("#")[0] or case_id


# --- what cannot be one ----------------------------------------------------------------------------------------------


def _check(records: Sequence[tuple[str, Record]]) -> None:
    if not records:
        raise MergeError("there is no record to merge")
    if not any(record.cases or record.planned or record.collected or record.skipped for _, record in records):
        raise MergeError(
            f"{', '.join(name for name, _ in records)}: none of them knows a case, so there is nothing to judge"
        )
    first_name, first = records[0]
    for index, (name, record) in enumerate(records):
        _started(record, name)
        for other_name, other in records[:index]:
            if other == record:
                raise MergeError(f"{other_name} and {name} are the same record: give each job's once")
        if record.tool_version != first.tool_version:
            raise MergeError(
                f"{first_name} was written by pytest-modelopt {first.tool_version}, {name} by {record.tool_version}: "
                "run all jobs with the same version"
            )
        if record.seed != first.seed:
            raise MergeError(
                f"{first_name} has the seed {first.seed}, {name} {record.seed}: they are of different runs"
            )
        if record.targets != first.targets:
            stated = [", ".join(each.name for each in of.targets) or "none" for of in (first, record)]
            raise MergeError(
                f"{first_name} and {name} state other targets ({stated[0]}; {stated[1]}): run all jobs with the same "
                "budgets file"
            )
        before, now = _compared(first.against), _compared(record.against)
        if before != now:
            raise MergeError(
                f"{first_name} compares {before}, {name} compares {now}: run all jobs at the same revision "
                "and with the same --modelopt-against"
            )


def _compared(against: Against | None) -> str:
    if against is None:
        return "nothing with a base"
    head = against.head or "an unknown head"
    return f"{head} with {'the saved record of ' if against.kind == 'record' else ''}{against.base}"


def _started(record: Record, name: str = "") -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(record.started.replace("Z", "+00:00"))
    except ValueError:
        raise MergeError(f"{name}: started: {record.started!r} is no date and time in ISO 8601") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.timezone.utc)


# --- which measurement counts ----------------------------------------------------------------------------------------


def _counted(records: Sequence[tuple[str, Record]]) -> tuple[list[_Measured], list[str]]:
    """The cases that count, and notes about those that do not.

    A record without an environment measured nothing, so nobody knows whether its machine is another one's: each stands
    for a machine of its own.
    """
    latest: dict[tuple[str, object], _Measured] = {}
    replaced: dict[tuple[int, int], list[Case]] = {}
    by_start = sorted(range(len(records)), key=lambda job: _started(records[job][1]))
    for job in by_start:
        record = records[job][1]
        for case in record.cases:
            machine = record.machine_of(case)
            key = (case.id, job if machine is None else _key(machine))
            before = latest.pop(key, None)
            if before is not None and before.job == job:
                raise MergeError(f"{records[job][0]} holds {case.id} twice")
            if before is not None:
                _check_same(records[before.job][0], before.case, records[job][0], case)
                replaced.setdefault((before.job, job), []).append(before.case)
            latest[key] = _Measured(case, job, machine)
    notes = [
        _format_repeated(records[before][0], records[before][1], records[after][0], cases)
        for (before, after), cases in replaced.items()
    ]
    return sorted(latest.values(), key=lambda each: each.job), notes


def _check_same(name: str, case: Case, other_name: str, other: Case) -> None:
    is_named = case.recipe and other.recipe  # a test that failed before it measured has not said what it measures
    if case.limits != other.limits or (is_named and case.name != other.name):
        raise MergeError(
            f"{name} and {other_name} both hold {case.id}, with different limits or recipes: they are not of the same "
            "revision of one project"
        )


def _format_repeated(name: str, record: Record, later: str, cases: Sequence[Case]) -> str:
    count = f"{len(cases)} case{' was' if len(cases) == 1 else 's were'}"
    red = [case.name for case in cases if is_red(case, record.strict)]
    shown = format_first(red, _NAMES_SHOWN)
    were_red = f"; in {name} {len(red)} of them {'was' if len(red) == 1 else 'were'} red: {shown}" if red else ""
    return f"{count} measured again on the same machine: {later} was started later than {name} and counts{were_red}"


def _interrupted(records: Sequence[tuple[str, Record]]) -> list[str]:
    return [
        f"{name} is of a run that was interrupted: leave it out where another job took its place"
        for name, record in records
        if not record.complete
    ]


# --- what the whole is -----------------------------------------------------------------------------------------------


def _key(machine: Environment | None) -> object:
    """Environments hold a dict, so they are no keys themselves."""
    if machine is None:
        return None
    facts = {field.name: getattr(machine, field.name) for field in fields(machine)}
    return tuple(tuple(sorted(fact.items())) if isinstance(fact, dict) else fact for fact in facts.values())


def _machines(counted: Sequence[_Measured]) -> dict[object, Environment | None]:
    """The machines of all cases, in the order of their jobs; the unknown one last."""
    found = {_key(each.machine): each.machine for each in counted}
    known = {key: machine for key, machine in found.items() if machine is not None}
    return known | {key: machine for key, machine in found.items() if machine is None}


def _planned(records: Sequence[Record]) -> tuple[str, ...]:
    """Every case that a job planned, or knew and left to others."""
    return tuple(dict.fromkeys(name for record in records for name in (*record.collected, *record.planned)))


def _against(told: Sequence[Against | None]) -> Against | None:
    known = [against for against in told if against is not None]
    if not known:
        return None
    return replace(
        known[0],
        has_uncommitted=any(against.has_uncommitted for against in known),
        loosened=tuple(dict.fromkeys(each for against in known for each in against.loosened)),
        removed=tuple(dict.fromkeys(name for against in known for name in against.removed)),
        unknown=next((against.unknown for against in known if against.unknown), ""),
        notes=tuple(dict.fromkeys(note for against in known for note in against.notes)),
    )
