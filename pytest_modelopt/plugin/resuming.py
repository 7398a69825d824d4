"""A run that goes on from the record of one that was interrupted: cases of budgets.yaml that stand there are taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_modelopt import __version__
from pytest_modelopt.config.text_mismatch import misstated
from pytest_modelopt.fleet.engine import Machine
from pytest_modelopt.fleet.project import Project, ProjectError, read_project
from pytest_modelopt.plugin.collecting.collection import AgainstBase, CaseItem, test_id
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.plugin.usage_errors import usage_error
from pytest_modelopt.reporting import files
from pytest_modelopt.reporting.plain_text import no_command, plain_line
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import RecordError, read
from pytest_modelopt.results.record import Environment, Record, Target
from pytest_modelopt.results.target import Fingerprint, fingerprint_of, is_for, lacks


def take_resumed(config: pytest.Config, session: Session) -> None:
    """Note the cases that the record of `--modelopt-resume` has measured without an error.

    Raises:
        pytest.UsageError: for a record of another state of the project, another version, or none at all.
    """
    from pytest_modelopt.measuring.variant import SEED

    path = session.options.resume
    if path is None:
        return
    if config.getoption("numprocesses", None):
        raise usage_error(
            "--modelopt-resume does not go together with -n: the processes of pytest-xdist know nothing of the record; "
            "take one of them away",
            "usage-record",
        )
    try:
        record = read(path)
    except OSError as error:
        raise usage_error(f"--modelopt-resume: {path}: {error.strerror or error}", "usage-record") from None
    except RecordError as error:
        raise usage_error(f"--modelopt-resume: {no_command(plain_line(str(error)))}", "usage-record") from None
    try:
        session.project = travelling(config, session).digest
    except ProjectError as error:
        raise usage_error(f"--modelopt-resume: {error}", "usage-fleet") from None
    if not record.project:
        why = "no run on a fleet wrote it (--modelopt-ray, --modelopt-slurm): which state of the project was it?"
    elif record.project != session.project:
        why = "files of the project have changed since"
    elif (record.tool_version, record.seed) != (__version__, SEED):
        wrote = no_command(plain_line(record.tool_version))
        why = f"pytest-modelopt {wrote} wrote it, and this is {__version__}"
    else:
        for case in record.cases:
            if found := _usable(path, record, case):
                session.resumed.setdefault(case.id, []).append(found)
        return
    raise usage_error(f"--modelopt-resume: {path}: {why}; run without it", "usage-record")


def _usable(path: Path, record: Record, case: Case) -> tuple[Case, Environment] | None:
    """The case and its machine, without what the record claims of its verdicts and of its test."""
    machine = record.machine_of(case)
    if case.error is not None or machine is None or case.base is not None:
        return None
    if why := misstated(case):
        told = no_command(plain_line(f"{case.name}: {why}"))
        raise usage_error(f"--modelopt-resume: {path}: {told}", "usage-record")
    return replace(case, verdicts=(), findings=(), expected=None), machine


def keep_whole(session: Session, items: Iterable[pytest.Item], machines: Sequence[tuple[Machine, Fingerprint]]) -> None:
    """Of the cases that the record has measured, leave those that the run takes: cases of budgets.yaml that stand there
    from a machine of each target that one of `machines` is."""
    found, session.resumed = session.resumed, {}
    for item in items:
        known = found.get(test_id(item))
        if known is None or not isinstance(item, CaseItem) or isinstance(item, AgainstBase):
            continue
        targets = [target for target in session.targets if is_for(target, item.entry.workload.device)]
        named = [_names(targets, fingerprint_of(machine)) for _, machine in known]
        wanted = set().union(*(_names(targets, fingerprint) for _, fingerprint in machines))
        if wanted.issubset(set().union(*named)):
            only = bool(wanted and session.options.targets)  # else what was measured elsewhere is kept, too
            taken = [each for each, names in zip(known, named, strict=True) if names or not only]
            session.resumed[test_id(item)] = taken


def this_machine(session: Session) -> list[tuple[Machine, Fingerprint]]:
    """As the machines of a cluster; empty where no target asks."""
    from pytest_modelopt.optimizing.this_machine import fingerprint

    return [(Machine("", "this machine"), fingerprint())] if session.targets else []


def _names(targets: Iterable[Target], machine: Fingerprint) -> set[str]:
    return {target.name for target in targets if not lacks(target, machine)}


def travelling(config: pytest.Config, session: Session) -> Project:
    """The project's files, but what this run writes, and what the run that it goes on from has. Raises ProjectError."""
    root, options = config.rootpath, session.options
    folders = [options.report, options.resume and options.resume.parent]
    reports = [folder / each.NAME for folder in folders if folder for each in files.report_files()]
    ours = (*reports, options.html, options.save, options.resume)
    outputs = (path.relative_to(root).as_posix() for path in ours if path and path.is_relative_to(root))
    return read_project(root, [*config.getini("modelopt_fleet_exclude"), *outputs])
