"""What a session takes the machine to be: what its workers say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.optimizing.this_machine import fingerprint
from pytest_modelopt.plugin.ended_tests import Report
from pytest_modelopt.plugin.options import Options
from pytest_modelopt.plugin.session import Session
from pytest_modelopt.results.case import CaseError
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case

BUDGETS = """version: 1
targets:
  other: {architecture: s390x, max_size: 1 kB}
models:
  m:
    factory: a:b
    data: a:b
    recipes: {int8-dynamic: {max_size: 2 MiB}}
"""
OTHER = replace(ENVIRONMENT, architecture="s390x")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    path = tmp_path / "budgets.yaml"
    path.write_text(BUDGETS, encoding="utf-8")
    progress: Any = None
    options = Options(path, True, None, False, None, None)
    return Session(options, load_budgets(path, relative_to=tmp_path), tmp_path, progress)


def test_a_case_is_judged_by_the_limits_of_the_machine_that_its_worker_names(session: Session) -> None:
    [entry] = session.entries
    assert fingerprint().architecture != "s390x"
    measured = case("int8-dynamic", "m", limits=entry.limits)
    assert measured.variant is not None
    assert measured.variant.size_bytes == MIB
    for machine, limit, outcome in ((ENVIRONMENT, "2 MiB", "pass"), (OTHER, "1 kB", "fail")):
        session._environment = machine
        judged = session._judged_where_it_ran(replace(measured, verdicts=()), entry)
        if machine is OTHER:
            assert [(each.limit.text, each.outcome) for each in judged.verdicts] == [(limit, outcome)]
        assert [each.text for each in judged.limits] == [limit]
    failed = replace(measured, error=CaseError("load", "no such file"))
    assert session._judged_where_it_ran(failed, entry) is failed


def test_the_machine_has_its_gpu_once_any_report_names_it(session: Session) -> None:
    """A worker of pytest-xdist may have run no case there."""
    with_gpu = replace(ENVIRONMENT, gpu="NVIDIA H100, CUDA 12.8")
    for machine, known in ((None, None), (ENVIRONMENT, ENVIRONMENT), (with_gpu, with_gpu), (ENVIRONMENT, with_gpu)):
        report = Report("t", "call", "passed", "", None, None, (), strict=False, environment=machine)
        session.take(report)
        assert session.record(complete=True).environment == known
