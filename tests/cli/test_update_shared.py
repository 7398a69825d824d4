"""`pytest-modelopt update`: values that several cases share, and what must be so for all files and figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import Case, CaseError
from pytest_modelopt.results.verdicts import Verdict
from tests.cli.update_by_hand import CASE, TIMED, Project, of_bytes, one
from tests.judging.answers_by_hand import answered
from tests.reporting.records_by_hand import MIB, case

# --- values that several cases share ---------------------------------------------------------------------------------

SHARED = """version: 1
models:
  m:
    factory: shop:net
    data: shop:data
    budget:
      max_memory: 4 MiB
    recipes:
      int8-dynamic: {}
      bf16: {max_size: &size 4 MiB}
      low-rank(ratio=0.5): {max_memory: 5 MiB, max_size: *size}
"""


def three(*memory: float, sizes: tuple[int, int] = (MIB, MIB)) -> dict[str, Case]:
    first, second, third = (int(each * MIB) for each in memory)
    return {
        "m/int8-dynamic": of_bytes(first),
        "m/bf16": of_bytes(second, sizes[0]),
        "m/low-rank(ratio=0.5)": of_bytes(third, sizes[1]),
    }


def test_the_worst_of_the_cases_decides(project: Project) -> None:
    """2 and 3 MiB share a limit, the third case has one of its own; sizes of 1 and 2 MiB share an anchor."""
    project.measured(SHARED, three(2, 3, 1, sizes=(MIB, 2 * MIB)))
    expected = SHARED.replace("max_memory: 4 MiB", "max_memory: 3.15 MiB").replace(" 5 MiB", " 1.05 MiB")
    assert project.update() == expected.replace("&size 4 MiB", "&size 2.1 MiB")
    assert "max_memory 4 MiB -> 3.15 MiB, measured 3 MiB (m/bf16)" in project.out


FOR_ALL = """version: 1
x-size: &size 4 MiB
defaults:
  budget: {max_memory: 4 MiB}
models:
  "[ab]": {budget: {max_size: *size}}
  a: {factory: shop:net, data: shop:data, recipes: {bf16: }}
  b: {factory: shop:net, data: shop:data, recipes: {bf16: }}
  c: {factory: shop:net, data: shop:data, recipes: {bf16: }}
"""


def test_what_models_share_is_set_once_to_what_the_worst_needs_and_it_is_said_who_shares(project: Project) -> None:
    """By `defaults:`, by a pattern, and by an alias of an `x-` key: 2, 3 and 1 MiB."""
    cases = {f"{name}/bf16": of_bytes(memory * MIB, memory * MIB) for name, memory in (("a", 2), ("b", 3), ("c", 1))}
    project.measured(FOR_ALL, cases)
    new = FOR_ALL.replace("max_memory: 4 MiB", "max_memory: 3.15 MiB").replace("&size 4 MiB", "&size 3.15 MiB")
    assert project.update() == new
    told = "4 MiB -> 3.15 MiB, measured 3 MiB (b/bf16), the worst of"
    assert f"budgets.yaml:4: max_memory {told} 3 cases that share the value\n" in project.out
    assert f"max_size {told} 2 cases that share the value\n" in project.out
    project.measured(FOR_ALL, {name: made for name, made in cases.items() if name != "c/bf16"})
    assert project.update() == FOR_ALL.replace("&size 4 MiB", "&size 3.15 MiB")
    assert "max_memory 4 MiB c/bf16 is not in the record" in project.out


def test_a_value_that_others_keep_is_not_loosened_for_the_sake_of_one(project: Project) -> None:
    for options in ([], ["--loosen"]):
        project.measured(SHARED, three(2, 4.5, 4.9))
        assert "max_memory: 4 MiB" in project.update(*options)
        assert (
            "max_memory 4 MiB is broken: 4.5 MiB (m/bf16) was measured, and it is kept by 1 case that shares the "
            "value, which would be loosened, too: state `max_memory: 4.73 MiB` below its recipe"
        ) in project.out


def test_a_value_that_all_who_share_it_break_is_loosened_where_that_is_asked_for(project: Project) -> None:
    project.measured(SHARED, three(4.2, 4.5, 4.9))
    assert "max_memory: 4 MiB" in project.update()
    assert "is broken: 4.5 MiB (m/bf16) was measured; with --loosen it would become 4.73 MiB" in project.out
    project.measured(SHARED, three(4.2, 4.5, 4.9))
    assert "max_memory: 4.73 MiB" in project.update("--loosen")


def test_all_that_share_must_be_in_the_record(project: Project) -> None:
    cases = three(2, 3, 1)
    del cases["m/bf16"]
    project.measured(SHARED, cases)
    assert project.update() == SHARED.replace("5 MiB", "1.05 MiB")
    assert "max_memory 4 MiB m/bf16 is not in the record" in project.out
    assert "max_size 4 MiB m/bf16 is not in the record" in project.out


def test_all_that_share_must_be_certain(project: Project) -> None:
    cases = three(2, 3, 1)
    cases["m/bf16"] = replace(cases["m/bf16"], error=CaseError("optimize", "no"))
    project.measured(SHARED, cases)
    assert project.update() == SHARED.replace("5 MiB", "1.05 MiB")
    assert "max_memory 4 MiB m/bf16 ended in an error" in project.out


def test_only_some_cases(project: Project) -> None:
    """A value that they share with others still is what all of them need."""
    project.measured(SHARED, three(2, 3, 1, sizes=(MIB, 2 * MIB)))
    assert project.update("--only", "m/low-rank( ratio=0.5 )", "--dry-run") == SHARED
    assert "2 limits set" in project.out
    assert project.update("--only", "m/bf16", "m/int8-dynamic") == SHARED.replace(
        "max_memory: 4 MiB", "max_memory: 3.15 MiB"
    ).replace("&size 4 MiB", "&size 2.1 MiB")


def test_merged_mappings(project: Project) -> None:
    text = """version: 1
models:
  a:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic: &small
        max_memory: 4 MiB
        max_size: 4 MiB
  b:
    factory: shop:net
    data: shop:data
    recipes:
      int8-dynamic:
        <<: *small
        max_size: 8 MiB
"""
    project.measured(text, {"a/int8-dynamic": of_bytes(2 * MIB), "b/int8-dynamic": of_bytes(3 * MIB, 2 * MIB)})
    assert project.update() == text.replace("memory: 4 MiB", "memory: 3.15 MiB").replace(
        "size: 4 MiB", "size: 1.05 MiB"
    ).replace("8 MiB", "2.1 MiB")


def test_an_alias_between_limits_of_two_kinds_is_left(project: Project) -> None:
    text = one("{min_memory_reduction: &third 30%, min_size_reduction: *third, max_size: 4 MiB}")
    project.measured(text, {CASE: case()})
    assert project.update() == text.replace("4 MiB", "1.05 MiB")
    assert "shares its value with min_size_reduction: write it out for each" in project.out


def test_an_alias_of_something_that_is_no_limit_is_left(project: Project) -> None:
    text = one("{max_latency: *time}", defaults="defaults: {time_limit: &time 20 s}\n")
    project.measured(text, {CASE: case(timing=TIMED)})
    assert project.update() == text
    assert "is written in a way that is not replaced here" in project.out


@pytest.mark.parametrize("value", ['"3\\x20MiB"', ">-\n          3 MiB", "|-\n          3 MiB", "3\n          MiB"])
def test_escapes_and_blocks_are_left_or_right(project: Project, value: str) -> None:
    text = one(f"\n        max_memory: {value}")
    project.measured(text, {CASE: case()})
    assert project.update() in (text, text.replace("3 MiB", "2.1 MiB"))


# --- for all files and figures ---------------------------------------------------------------------------------------

_BYTES = st.integers(1, 16 * MIB)
_STATED = {
    "max_memory": st.sampled_from(["1 MiB", "7MB", "12345678 B", "0.01 GiB", "'3 MiB'", "900 kB"]),
    "max_size": st.sampled_from(["1 MiB", '"7 MB"', "12345678 B", "{limit: 5 MB, level: warn}"]),
    "min_memory_reduction": st.sampled_from(["10%", "0.9", "0", "{level: warn, limit: 33.3%}"]),
    "min_size_reduction": st.sampled_from(["75%", ".25", "1.0"]),
    "max_flips": st.sampled_from(["1%", "0", "0.05", "100%"]),
    "max_accuracy_drop": st.sampled_from(["1 pp", "0.02", "0 pp", "0"]),
    "min_accuracy": st.sampled_from(["80%", "0.9", "95 %"]),
}
_LIMITS = st.fixed_dictionaries({}, optional=_STATED)


@st.composite
def measured_cases(draw: st.DrawFn) -> Case:
    wrong = draw(st.integers(6, 50))
    lost, won = draw(st.integers(0, 30)), draw(st.integers(0, min(30, wrong)))
    of = answered(10 * wrong, lost=lost, won=won, score=0.9)
    assert of.variant is not None
    memory, size = draw(_BYTES), draw(_BYTES)
    weights = min(memory, size)
    return replace(
        of, variant=replace(of.variant, weights_bytes=weights, call_peak_bytes=memory - weights, size_bytes=size)
    )


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink an example takes minutes, since each one writes files
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    budget=_LIMITS,
    first=_LIMITS,
    second=_LIMITS,
    cases=st.tuples(measured_cases(), measured_cases()),
    headroom=st.sampled_from(["0%", "1%", "5%", "40%"]),
    loosen=st.booleans(),
)
def test_for_all_files_and_figures(
    project: Project,
    budget: dict[str, str],
    first: dict[str, str],
    second: dict[str, str],
    cases: tuple[Case, Case],
    headroom: str,
    loosen: bool,
) -> None:
    """Certain limits hold afterwards; only broken ones are looser, if asked; another run changes nothing."""

    def flow(limits: dict[str, str]) -> str:
        return "{" + ", ".join(f"{name}: {value}" for name, value in limits.items()) + "}"

    text = one(flow(first), model=f"    budget: {flow(budget)}\n") + f"      bf16: {flow(second)}\n"
    by_name = {CASE: cases[0], "m/bf16": cases[1]}
    before = project.measured(text, by_name)
    arguments = ("--headroom", headroom, *(["--loosen"] if loosen else []))
    new = project.update(*arguments)
    after = project.measured(new, by_name)
    sharing: dict[tuple[int, str], list[tuple[Verdict, Verdict]]] = {}
    for then, now in zip(before.cases, after.cases, strict=True):
        for old, judged in zip(then.verdicts, now.verdicts, strict=True):
            sharing.setdefault((old.limit.line, old.limit.name), []).append((old, judged))
    for (_, name), verdicts in sharing.items():
        stated, stands = verdicts[0][0].limit, verdicts[0][1].limit
        looser = (stands.value - stated.value) * (1 if LIMITS[name].direction == "max" else -1)
        outcomes = {old.outcome for old, _ in verdicts}
        if not outcomes <= {"pass", "fail"} or ("fail" in outcomes and not loosen) or outcomes == {"pass", "fail"}:
            assert stands.text == stated.text
        elif "fail" not in outcomes or "keeps no value of it for certain" not in project.out:
            assert {judged.outcome for _, judged in verdicts} == {"pass"}
            assert looser <= 0 or "fail" in outcomes
    # A drop that no floor makes meaningless any more is judged from the second run on.
    assert project.update(*arguments) == new or loosen
    assert len(new.splitlines()) == len(text.splitlines())


# --- workloads -------------------------------------------------------------------------------------------------------

POINTS = """version: 1
models:
  m:
    factory: shop:net
    data: shop:data
    workloads:
      online: {threads: 1}
      night: {threads: 2, max_memory: 6 MiB}
    budget: {max_memory: 5 MiB}
    recipes:
      int8-dynamic: {max_size: 4 MiB, workloads: {online: {max_memory: 4 MiB}}}
      bf16: {}
"""


def test_a_limit_is_set_where_it_holds_for_its_rows(project: Project) -> None:
    """That of night by the worst of both recipes, that of the budget by bf16 online alone."""
    night = {name: replace(of_bytes(memory), threads=2) for name, memory in (("int8-dynamic", MIB), ("bf16", 2 * MIB))}
    online = {"int8-dynamic": of_bytes(MIB / 2), "bf16": of_bytes(3 * MIB)}
    cases = {f"m/{name} @ night": of for name, of in night.items()}
    project.measured(POINTS, cases | {f"m/{name} @ online": of for name, of in online.items()})
    expected = POINTS.replace("6 MiB", "2.1 MiB").replace("5 MiB", "3.15 MiB")
    expected = expected.replace("max_size: 4 MiB", "max_size: 1.05 MiB")
    assert project.update() == expected.replace("{max_memory: 4 MiB", "{max_memory: 0.525 MiB")
    project.measured(POINTS, cases | {f"m/{name} @ online": of for name, of in online.items()})
    assert project.update("--only", "m/bf16 @ night") == POINTS.replace("6 MiB", "2.1 MiB")
