"""What a record has of the targets of its budgets file, and when a missing one makes it red."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.reporting.notes import waiver_notes
from pytest_modelopt.reporting.table import blocks
from pytest_modelopt.reporting.target_notes import target_notes
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.merging import MergeError, merge
from pytest_modelopt.results.record import Environment, Record, Target
from pytest_modelopt.results.run_outcome import run_outcome
from pytest_modelopt.results.target import on_targets
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict, Waiver
from tests.reporting import records_by_hand
from tests.reporting.records_by_hand import ENVIRONMENT, MIB, case

INTEL = replace(ENVIRONMENT, architecture="x86_64")
ARM = replace(ENVIRONMENT, architecture="aarch64", cpu="Example Arm", cpu_flags=("asimddp",))
SERVER, PHONE = Target("server", instructions=("avx512_vnni",), is_required=True), Target("phone", "arm64")
CASES = (case("int8-dynamic"), case("bf16"))


def record(
    *cases: Case, machine: Environment = INTEL, targets: tuple[Target, ...] = (SERVER, PHONE), **more: Any
) -> Record:
    return records_by_hand.record(*cases, environment=machine, targets=targets, **more)


def both(*, on_arm: tuple[Case, ...] = CASES) -> Record:
    return merge([("a", record(*CASES)), ("b", record(*on_arm, machine=ARM))])


def told(of: Record) -> list[str]:
    return [f"{item.label} {item.text}" for item in target_notes(of)]


def test_a_required_target_without_a_machine_is_red_and_another_is_told() -> None:
    here, there = record(*CASES), record(*CASES, machine=ARM)
    assert not run_outcome(here).is_red
    assert told(here) == [
        "NOTE the target phone (arm64): no machine of this run is one (this one is x86_64 and not arm64); its limits "
        "were not checked"
    ]
    assert run_outcome(there).causes == ("target missing",)
    assert run_outcome(there).word == "FAILED"
    assert told(there) == [
        "FAIL the target server (avx512_vnni): no machine of this run is one (this one lacks avx512_vnni); it is "
        "required: run there, too, and put the records together by `pytest-modelopt merge`; a job for some targets "
        "only names them by --modelopt-targets"
    ]


def test_a_job_answers_for_the_targets_that_it_names_and_the_merged_record_for_all() -> None:
    job = record(*CASES, machine=ARM, of_targets=("phone",))
    assert not run_outcome(job).is_red
    assert run_outcome(replace(job, environment=INTEL)).is_red, "named, so demanded, though it is not required"
    assert run_outcome(merge([("a", job)])).is_red
    assert not run_outcome(merge([("a", job), ("b", record(*CASES))])).is_red


def test_each_case_has_to_be_measured_on_a_required_target() -> None:
    merged = merge([("a", record(CASES[0])), ("b", record(*CASES, machine=ARM))])
    assert run_outcome(merged).causes == ("target missing",)
    [found, _] = on_targets(merged)
    assert (found.machines, found.measured, found.left) == ((0,), 1, ("budgets.yaml::digits-vit/bf16",))
    [text] = [each for each in told(merged) if each.startswith("FAIL")]
    assert "1 of 2 cases was measured on other machines only: budgets.yaml::digits-vit/bf16; it is required" in text
    assert not run_outcome(both()).is_red
    assert told(both()) == []


def test_a_target_is_about_the_cases_of_its_device() -> None:
    gpu = Target("gpu", device="cuda", is_required=True)
    of_both = (case("bf16"), replace(case("int8-dynamic"), device="cuda:0"))
    machine = replace(INTEL, gpu="NVIDIA H100, CUDA 12.8")
    assert not run_outcome(record(*of_both, machine=machine, targets=(gpu,))).is_red
    without = record(of_both[0], machine=machine, targets=(gpu,))
    assert run_outcome(without).is_red
    assert "no case of this run is on its device, cuda" in told(without)[0]
    assert run_outcome(record(*of_both, targets=(gpu,))).is_red, "no GPU was there"


def test_a_run_that_measured_nothing_says_that_and_nothing_of_targets() -> None:
    assert "target missing" not in run_outcome(record(machine=ARM)).causes
    assert told(record(machine=ARM)) == []


def test_records_of_other_targets_are_not_merged() -> None:
    """A job that knows no target has checked none of its limits."""
    for targets in ((replace(SERVER, cores=4), PHONE), (SERVER,), ()):
        with pytest.raises(MergeError, match=r"a and b state other targets .*: run all jobs with"):
            merge([("a", record(*CASES)), ("b", record(*CASES, machine=ARM, targets=targets))])


def test_a_name_that_no_target_has_takes_no_demand_away() -> None:
    assert run_outcome(record(*CASES, machine=ARM, of_targets=("phone", "no such"))).is_red


def test_the_machines_of_a_case_stand_below_each_other() -> None:
    [block] = blocks(both())
    assert block.title == "digits-vit"
    assert [row.recipe for row in block.rows] == [
        "original on target server",
        "original on target phone",
        "int8-dynamic on target server",
        "int8-dynamic on target phone",
        "bf16 on target server",
        "bf16 on target phone",
    ]
    assert [row.recipe for row in blocks(record(*CASES))[0].rows] == ["original", "int8-dynamic", "bf16"]
    twins = replace(both(), targets=(Target("any", cores=1),))
    names = ["original on target any (machine 1)", "original on target any (machine 2)"]
    assert [row.recipe for row in blocks(twins)[0].rows][:2] == names
    other = replace(both(), targets=(PHONE,))
    assert [row.recipe for row in blocks(other)[0].rows][:2] == ["original on machine 1", "original on target phone"]


def test_a_waiver_may_be_needed_on_another_machine() -> None:
    waived = Limit(
        "max_size", 9 * MIB, "9 MiB", "error", "budgets.yaml", 3, Waiver("2999-01-01", "x", "budgets.yaml", 9)
    )
    kept = replace(CASES[0], limits=(waived,), verdicts=(Verdict(waived, "pass", 1.0, Reason("measured")),))
    assert waiver_notes(record(kept)) == []
    [note] = waiver_notes(record(kept, targets=()))
    assert note.text.endswith("The limit holds without it: remove it.")
    assert waiver_notes(both(on_arm=(kept,))), "all machines are there"
