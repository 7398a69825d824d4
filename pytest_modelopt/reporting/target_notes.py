"""What there is to say about targets on which not every case was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pytest_modelopt.reporting.item import Item
from pytest_modelopt.reporting.names import first_names, machines
from pytest_modelopt.reporting.plain_text import plain_line
from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.record import Record, Target
from pytest_modelopt.results.target import fingerprint_of, format_kind, lacks, on_targets


def target_notes(record: Record) -> Iterator[Item]:
    """Targets on which no case was measured, or not every one."""
    for found in on_targets(record) if record.cases else ():
        name = plain_line(found.target.name)
        kind = plain_line(format_kind(found.target))
        if not found.is_missing:
            continue
        if not found.machines:
            title, why = f"target {name} is missing", f"{_no_machine(record, found.target)}"
        elif not found.measured:
            title, why = f"target {name} is missing", f"no case of this run is on its device, {found.target.device}"
        else:
            count = f"{len(found.left)} of {format_count(len(found.left) + found.measured, 'case')}"
            title = f"{count} not on target {name}"
            why = f"{count} {'was' if len(found.left) == 1 else 'were'} measured on other machines only: "
            why += first_names(found.left)
        way = _WAYS[record.merged is not None]
        text = f"the target {name} ({kind}): {why}"
        if found.is_demanded:
            yield Item("error", "FAIL", title, f"{text}; {way}", excess=math.inf)
        else:
            checked = "for them its limits were not checked" if found.measured else "its limits were not checked"
            yield Item("info", "NOTE", title, f"{text}; {checked}")


def _no_machine(record: Record, target: Target) -> str:
    """Why no machine of a record is one."""
    told = []
    for index, machine in enumerate(machines(record)):
        name = f"machine {index + 1}" if record.other_machines else "this one"
        found = (
            "is unknown, since nothing was measured"
            if machine is None
            else " and ".join(lacks(target, fingerprint_of(machine)))
        )
        told.append(f"{name} {found}")
    return plain_line(f"no machine of this run is one ({'; '.join(told)})")


_WAYS = (
    "it is required: run there, too, and put the records together by `pytest-modelopt merge`; a job for some targets "
    "only names them by --modelopt-targets",
    "it is required: add the record of a job that runs there",
)
"""What to do, for the record of one run and for a merged one."""
