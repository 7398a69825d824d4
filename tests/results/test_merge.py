"""The records of several jobs: what of them counts, what is missing, and which cannot be one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_modelopt.results.base import Against, Loosening
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import dumps, loads
from pytest_modelopt.results.layer_costs import RecipeSensitivity
from pytest_modelopt.results.merging import MergeError, merge
from pytest_modelopt.results.outcome import case_outcome
from pytest_modelopt.results.record import Environment, Record
from pytest_modelopt.results.run_outcome import record_is_red, run_outcome
from pytest_modelopt.results.verdicts import Limit, Outcome, Reason, Verdict
from tests.reporting import records_by_hand
from tests.reporting.records_by_hand import measurement

LINUX = Environment(
    "3.11.9", "Linux", "Example CPU", 2, "AVX512", ("avx2",), "2.13.0", "x86", packages={"torchao": "1"}
)
MAC = replace(LINUX, platform="macOS", cpu="Apple M4", cpu_capability="NEON")
AGAINST = Against("revision", "merge-base:origin/main", "b" * 40, "h" * 40, False)
LIMIT = Limit("max_size", 1.0, "1 B", "error", "budgets.yaml", 3)


def case(name: str, outcome: Outcome = "pass", *, size: int = 1, **changes: Any) -> Case:
    side = measurement(None, size=size, weights=1, peak=1, score=0.5, examples=10)
    verdict = Verdict(LIMIT, outcome, 1.0, Reason("measured"))
    return replace(records_by_hand.case(name, "m", verdicts=(verdict,), reference=side, variant=side), **changes)


def record(*cases: Case, started: str = "2026-11-24T03:00:00+00:00", **changes: Any) -> Record:
    ids = tuple(each.id for each in cases)
    made = records_by_hand.record(*cases, started=started, timed_limits=3, environment=LINUX, collected=ids)
    return replace(made, **changes)


def ids(*names: str) -> tuple[str, ...]:
    return tuple(f"budgets.yaml::m/{name}" for name in names)


def of(*records: Record) -> Record:
    return merge([(f"{chr(ord('a') + index)}.json", each) for index, each in enumerate(records)])


# --- shards ----------------------------------------------------------------------------------------------------------


def test_shards_that_ran_everything_together_are_one_green_record() -> None:
    everything = ids("x", "y", "z")
    merged = of(record(case("y"), collected=everything), record(case("x"), case("z"), collected=everything))
    assert [each.recipe for each in merged.cases] == ["x", "y", "z"]  # in the order of the suite
    assert merged.planned == everything
    assert (merged.environment, merged.other_machines) == (LINUX, ())
    assert merged.merged is not None
    assert (merged.merged.jobs, merged.merged.notes) == (2, ())
    assert not record_is_red(merged)
    assert run_outcome(merged).never_ran == ()


def test_a_shard_that_is_missing_makes_the_whole_red_and_is_named() -> None:
    merged = of(record(case("x"), collected=ids("x", "y", "z")), record(case("z"), collected=ids("x", "y", "z")))
    assert run_outcome(merged).never_ran == ids("y")
    assert record_is_red(merged)
    alone = of(record(case("x"), collected=ids("x", "y")))  # also where one record only is given
    assert run_outcome(alone).never_ran == ids("y")
    assert record_is_red(alone)
    assert not record_is_red(record(case("x"), collected=ids("x", "y")))  # one job may leave out what it likes


def test_what_a_job_planned_and_did_not_run_is_missing_too() -> None:
    merged = of(record(case("x"), planned=ids("x", "y"), collected=()), record(case("z")))
    assert run_outcome(merged).never_ran == ids("y")


def test_where_no_job_knows_a_case_nothing_is_green() -> None:
    with pytest.raises(MergeError, match=r"^a\.json, b\.json: none of them knows a case"):
        of(record(), record(seed=7, started="2026-11-24T04:00:00+00:00"))
    assert not record_is_red(of(record(), record(case("x"))))
    assert record_is_red(of(record(skipped=ids("x"))))  # nothing was compared


def test_a_case_that_one_job_skips_must_run_in_another() -> None:
    first = record(case("x"), collected=ids("x", "y"), skipped=ids("y"))
    merged = of(first, record(case("z"), collected=ids("x", "y", "z")))
    assert run_outcome(merged).never_ran == ()
    assert merged.skipped == ids("y")
    assert run_outcome(merged).headline == "FAILED, PARTIAL: 2 of 3 cases ran"
    assert not record_is_red(of(first, record(case("y"), case("z"), collected=ids("x", "y", "z"))))


def test_cases_of_one_test_belong_to_it() -> None:
    second = replace(case("x"), id=f"{ids('x')[0]}#2", recipe="x2")
    merged = of(record(case("y"), collected=ids("x", "y")), record(case("x"), second, collected=ids("x", "y")))
    assert [each.recipe for each in merged.cases] == ["x", "x2", "y"]
    assert run_outcome(merged).never_ran == ()


def test_an_interrupted_job_is_named_and_red() -> None:
    merged = of(record(case("x")), record(case("y"), complete=False))
    assert merged.merged is not None
    assert merged.merged.notes == (
        "b.json is of a run that was interrupted: leave it out where another job took its place",
    )
    assert record_is_red(merged)
    assert record_is_red(record(case("y"), complete=False))


def test_a_red_case_of_any_job_is_red() -> None:
    assert record_is_red(of(record(case("x")), record(case("y", "fail"))))
    assert record_is_red(of(record(case("x", "fail")), record(case("y"))))


# --- machines --------------------------------------------------------------------------------------------------------


def test_a_case_of_two_machines_is_kept_twice_and_each_says_where() -> None:
    layers = [RecipeSensitivity("m", name, True, ()) for name in ("x", "y")]
    merged = of(
        record(case("x", size=1), case("y"), sensitivity=(layers[0],)),
        record(case("x", size=2), case("y"), environment=MAC, sensitivity=tuple(layers)),
    )
    assert merged.sensitivity == tuple(layers)
    assert [(each.recipe, each.machine) for each in merged.cases] == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]
    assert [merged.machine_of(each) for each in merged.cases] == [LINUX, MAC, LINUX, MAC]
    assert [each.variant.size_bytes for each in merged.cases if each.recipe == "x" and each.variant] == [1, 2]
    assert merged.other_machines == (MAC,)


@pytest.mark.parametrize(
    "other",
    [replace(LINUX, torch="2.14.0"), replace(LINUX, packages={"torchao": "2"}), replace(LINUX, gpu="H100")],
)
def test_anything_that_differs_is_another_machine(other: Environment) -> None:
    assert len(of(record(case("x")), record(case("x"), environment=other)).cases) == 2


def test_a_red_case_of_one_machine_is_not_hidden_by_the_other() -> None:
    outcomes: tuple[tuple[Outcome, Outcome], ...] = (("pass", "fail"), ("fail", "pass"))
    for first, second in outcomes:
        merged = of(record(case("x", first)), record(case("x", second), environment=MAC))
        assert record_is_red(merged)


def test_a_job_that_measured_nothing_is_a_machine_of_its_own() -> None:
    lost = record(case("x", "fail"), environment=None)
    merged = of(lost, record(case("x"), started="2026-11-25T03:00:00+00:00"), replace(lost, strict=True))
    assert [(each.machine, case_outcome(each, False)) for each in merged.cases] == [
        (0, "pass"),
        (1, "fail"),
        (1, "fail"),
    ]
    assert (merged.environment, merged.other_machines) == (LINUX, (None,))
    nothing = of(lost)
    assert (nothing.environment, nothing.other_machines, nothing.cases[0].machine) == (None, (), 0)
    assert of(record(skipped=ids("x"))).environment == LINUX


# --- the same case again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
def test_of_the_same_case_on_the_same_machine_the_later_run_counts(is_first: bool) -> None:
    early = record(case("x", "fail", size=1), case("y"), started="2026-11-24T03:00:00Z")
    late = record(case("x", size=2), started="2026-11-24T02:30:00-01:00")  # 03:30 in UTC
    merged = of(early, late) if is_first else of(late, early)
    assert [(each.recipe, each.variant and each.variant.size_bytes) for each in merged.cases] == [("x", 2), ("y", 1)]
    assert not record_is_red(merged)
    early_name, late_name = ("a.json", "b.json") if is_first else ("b.json", "a.json")
    assert merged.merged is not None
    assert merged.merged.notes == (
        f"1 case was measured again on the same machine: {late_name} was started later than {early_name} and counts; "
        f"in {early_name} 1 of them was red: m/x",
    )


def test_a_time_without_a_zone_is_one_in_utc() -> None:
    early, late = record(case("x", size=1), started="2026-11-24T03:00:00"), record(case("x", size=2))
    assert [each.variant.size_bytes for each in of(early, late).cases if each.variant] == [2]
    after = record(case("x", size=3), started="2026-11-24T03:00:01")
    assert [each.variant.size_bytes for each in of(after, late).cases if each.variant] == [3]


def test_of_two_that_started_together_the_last_one_counts() -> None:
    merged = of(record(case("x", size=1)), record(case("x", size=2)))
    assert [each.variant.size_bytes for each in merged.cases if each.variant] == [2]


def test_the_same_name_with_other_limits_is_another_project() -> None:
    with pytest.raises(MergeError, match=r"a\.json and b\.json both hold budgets\.yaml::m/x, with different limits"):
        of(record(case("x")), record(case("x", limits=(replace(LIMIT, value=2.0),))))


def test_a_case_twice_in_one_record_is_refused() -> None:
    with pytest.raises(MergeError, match=r"a\.json holds budgets\.yaml::m/x twice"):
        of(record(case("x"), case("x", size=2)))


# --- what cannot be one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"against": None}, f"a.json compares {'h' * 40} with {'b' * 40}, b.json compares nothing with a base"),
        ({"against": replace(AGAINST, base="c" * 40)}, f"b.json compares {'h' * 40} with {'c' * 40}"),
        ({"against": replace(AGAINST, head="i" * 40)}, f"b.json compares {'i' * 40} with {'b' * 40}"),
        (
            {"against": replace(AGAINST, kind="record")},
            f"b.json compares {'h' * 40} with the saved record of {'b' * 40}",
        ),
        ({"tool_version": "0.2.0"}, "a.json was written by pytest-modelopt 0.1.0, b.json by 0.2.0"),
        ({"seed": 8}, "a.json has the seed 7, b.json 8"),
        ({"started": "yesterday"}, "b.json: started: 'yesterday' is no date and time in ISO 8601"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(MergeError) as error:
        of(record(case("x"), against=AGAINST), replace(record(case("y"), against=AGAINST), **changes))
    assert told in str(error.value)


def test_the_same_record_twice_is_refused() -> None:
    with pytest.raises(MergeError, match=r"a\.json and c\.json are the same record"):
        of(record(case("x")), record(case("y")), record(case("x")))
    with pytest.raises(MergeError, match="no record"):
        of()


# --- the whole -------------------------------------------------------------------------------------------------------


def test_what_the_jobs_know_of_the_base_is_put_together() -> None:
    one = Loosening("m/x", "max_size", "relaxed", "1 B", "2 B", "+100%", "budgets.yaml", 3)
    two = replace(one, case="m/y")
    first = replace(AGAINST, loosened=(one,), removed=("m/z",), notes=("n",))
    second = replace(
        AGAINST, asked="main", loosened=(one, two), removed=("m/z",), notes=("n", "o"), has_uncommitted=True
    )
    merged = of(record(case("x"), against=first), record(case("y"), against=second))
    assert merged.against == replace(
        AGAINST, loosened=(one, two), removed=("m/z",), notes=("n", "o"), has_uncommitted=True
    )
    assert of(record(case("x")), record(case("y"))).against is None


def test_the_strictest_and_the_earliest_hold_for_the_whole() -> None:
    merged = of(
        record(case("x"), started="2026-11-24T04:00:00Z", timed_limits=2),
        record(case("y"), started="2026-11-24T03:00:00Z", strict=True, timed_limits=5),
    )
    assert (merged.started, merged.strict, merged.timed_limits) == ("2026-11-24T03:00:00Z", True, 5)


def test_merged_records_can_be_merged_again_and_written() -> None:
    linux = of(record(case("x", "fail")), record(case("x"), case("y"), started="2026-11-25T03:00:00Z"))
    mac = of(record(case("x"), case("y"), environment=MAC))
    merged = of(mac, linux)
    assert [(each.recipe, merged.machine_of(each)) for each in merged.cases] == [
        ("x", MAC), ("x", LINUX), ("y", MAC), ("y", LINUX),
    ]  # fmt: skip
    assert merged.merged is not None
    assert merged.merged.jobs == 3
    assert len(merged.merged.notes) == 1
    assert loads(dumps(merged)) == merged
