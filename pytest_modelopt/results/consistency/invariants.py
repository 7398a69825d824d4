"""What the counts and columns of a case must be beside their types, so that whatever reads a record can rely on it."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Collection, Iterator, Mapping

from pytest_modelopt.results.answers import MOST_CHANGED, MOST_SLICES, Agreement, Changed, Repeat, Slices
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Record
from pytest_modelopt.results.verdicts import Limit

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def contradiction(case: Case) -> str:
    """The first thing that cannot be, as 'agreement.flips: must be from 0 to 360, not -1'; '' where there is none."""
    return next(_contradictions(case), "")


def contradiction_of_record(record: Record) -> str:
    """The first thing that cannot be among the parts of a record, as `contradiction` tells it of one case."""
    return next(itertools.chain(_of_machines(record), _of_targets(record), _of_sensitivity(record)), "")


def _of_machines(record: Record) -> Iterator[str]:
    machines = 1 + len(record.other_machines)
    for index, case in enumerate(record.cases):
        if case.machine >= machines:
            yield (
                f"cases[{index}].machine: must be from 0 to {machines - 1}, since the record has {machines} "
                f"machine{'' if machines == 1 else 's'}, not {case.machine}"
            )


def _of_targets(record: Record) -> Iterator[str]:
    names = [target.name for target in record.targets]
    if len(set(names)) < len(names):
        yield "targets: must have different names"
    for index, name in enumerate(record.of_targets):
        if name not in names:
            yield f"of_targets[{index}]: must be the name of one of the record's targets"


def _of_sensitivity(record: Record) -> Iterator[str]:
    for index, of in enumerate(record.sensitivity):
        for number, cost in enumerate(of.costs):
            path = f"sensitivity[{index}].costs[{number}]"
            if not cost.group.names:
                yield f"{path}.group.names: must not be empty"
            counts = {"group.weight_bytes": cost.group.weight_bytes, "group.multiply_adds": cost.group.multiply_adds}
            for name, count in {**counts, "examples": cost.examples}.items():
                if count < 0:
                    yield f"{path}.{name}: must be at least 0, not {count}"
            if cost.flips is not None and not 0 <= cost.flips <= cost.examples:
                yield f"{path}.flips: must be from 0 to {cost.examples}, not {cost.flips}"


def _contradictions(case: Case) -> Iterator[str]:
    if case.machine < 0:
        yield f"machine: must be at least 0, not {case.machine}"
    for index, limit in enumerate(case.limits):
        yield from _of_waiver(limit, f"limits[{index}]")
    for index, verdict in enumerate(case.verdicts):
        yield from _of_waiver(verdict.limit, f"verdicts[{index}].limit")
    if case.agreement is not None:
        yield from _of_agreement(case.agreement)
        if case.agreement.changed is not None:
            yield from _of_changed(case.agreement.changed)
    if case.slices is not None:
        yield from _of_slices(case.slices)
    for name, timing in case.timings.items():
        if any(not calls or min(calls) < 1 for calls in timing.variant_calls_ns):
            yield f"{name}.variant_calls_ns: must hold whole numbers of at least 1 for each pair"
    for name, side in (("reference", case.reference), ("variant", case.variant)):
        if side is not None and side.repeat is not None:
            yield from _of_repeat(side.repeat, f"{name}.repeat")


def _of_waiver(limit: Limit, path: str) -> Iterator[str]:
    if limit.waiver is not None and not _is_date(limit.waiver.until):
        yield f"{path}.waiver.until: must be a date as 2027-01-31, not {limit.waiver.until[:20]!r}"


def _is_date(text: str) -> bool:
    try:
        return bool(_DATE.fullmatch(text)) and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _of_agreement(agreement: Agreement) -> Iterator[str]:
    if agreement.examples < 1:
        yield f"agreement.examples: must be at least 1, not {agreement.examples}"
    counts = {name: getattr(agreement, name) for name in ("right_to_wrong", "wrong_to_right", "flips")}
    for name, count in counts.items():
        if not 0 <= count <= agreement.examples:
            yield f"agreement.{name}: must be from 0 to {agreement.examples}, not {count}"
    if agreement.right_to_wrong + agreement.wrong_to_right > agreement.examples:
        yield f"agreement: right_to_wrong and wrong_to_right are more than the {agreement.examples} examples"


def _of_changed(changed: Changed) -> Iterator[str]:
    target = {} if changed.target is None else {"target": changed.target}
    columns = {"index": changed.index, **target, "before": changed.before, "after": changed.after}
    yield from _columns(columns, "agreement.changed", MOST_CHANGED)
    if any(index < 0 for index in changed.index):
        yield "agreement.changed.index: must hold whole numbers of at least 0"


def _of_slices(slices: Slices) -> Iterator[str]:
    if (slices.right_to_wrong is None) != (slices.wrong_to_right is None):
        yield "slices: right_to_wrong and wrong_to_right must be there both, or neither"
    counts = {
        name: column
        for name, column in (("right_to_wrong", slices.right_to_wrong), ("wrong_to_right", slices.wrong_to_right))
        if column is not None
    }
    columns = {"names": slices.names, "examples": slices.examples, "drops": slices.drops, **counts}
    too_long = list(_columns(columns, "slices", MOST_SLICES))
    yield from too_long
    if any(count < 1 for count in slices.examples):
        yield "slices.examples: must hold whole numbers of at least 1"
    if too_long or len(counts) < 2:
        return
    for examples, lost, won in zip(slices.examples, *counts.values(), strict=True):
        if min(lost, won) < 0 or lost + won > examples:
            yield f"slices: {lost} lost and {won} won of {examples} examples cannot be"


def _of_repeat(repeat: Repeat, path: str) -> Iterator[str]:
    if repeat.examples < 1:
        yield f"{path}.examples: must be at least 1, not {repeat.examples}"
    if repeat.flips is not None and not 0 <= repeat.flips <= repeat.examples:
        yield f"{path}.flips: must be from 0 to {repeat.examples}, not {repeat.flips}"


def _columns(columns: Mapping[str, Collection[object]], path: str, most: int) -> Iterator[str]:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        yield f"{path}: the columns must be equally long"
    if max(lengths) > most:
        yield f"{path}: must have at most {most} entries, not {max(lengths)}"
