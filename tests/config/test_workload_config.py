"""`workloads:` of a budgets file: how the call is made at each, which limits hold there, and each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.config.loader import CaseEntry, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.results.workload import Workload, at_workload, without_workload

START = """version: 1
defaults: {threads: 3, batch_size: 2, time_limit: 9 s}
models:
  m:
    factory: a:b
    data: a:b
"""
CASES = "    recipes: {int8-dynamic: }\n"


def cases(folder: Path, text: str) -> dict[str, CaseEntry]:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    budgets = load_budgets(path, relative_to=folder)
    return {case.name: case for case in (*budgets.originals, *budgets.cases)}


def test_what_stands_closer_says_how_the_call_is_made(tmp_path: Path) -> None:
    text = START + "    threads: 2\n    time_limit: 5 s\n    example_inputs: a:docs\n" + CASES
    text += "    workloads:\n      a: {batch_size: 8}\n      b: {threads: 1}\n"
    text += "      c: {example_inputs: a:long, batch_size: 4, time_limit: 1 s, device: cuda}\n"
    found = {name: case.workload for name, case in cases(tmp_path, text).items()}
    assert found == {
        f"m/{recipe} @ {workload.name}": workload
        for recipe in ("original", "int8-dynamic")
        for workload in (
            Workload("a", 8, 2, "cpu", 5.0, "a:docs", "first"),
            Workload("b", 2, 1, "cpu", 5.0, "a:docs", "all"),
            Workload("c", 4, 2, "cuda", 1.0, "a:long", "exactly"),
        )
    }
    plain = cases(tmp_path, START + CASES)
    assert {name: case.workload for name, case in plain.items()} == dict.fromkeys(
        ("m/original", "m/int8-dynamic"), Workload("", 2, 3, "cpu", 9.0, None, "first")
    )


def test_limits_of_a_point_go_before_those_of_the_recipe_and_these_before_the_budget(tmp_path: Path) -> None:
    text = START + (
        "    budget: {max_memory: 4 MB, max_size: 4 MB, max_flips: 4%, min_coverage: 4%}\n"
        "    original: {max_memory: 5 MB, workloads: {night: {max_memory: 6 MB}}}\n"
        "    workloads:\n      online:\n        batch_size: 1\n      night: "
        "{max_memory: 3 MB, max_size: 3 MB, min_coverage: 3%}\n"
        "    candidates: {student: {factory: a:c, workloads: {night: {max_memory: 2 MB}}}}\n"
        "    recipes:\n"
        "      int8-dynamic: {max_size: 2 MB, workloads: {night: {max_memory: 1 MB}}}\n"
        "      bf16: {max_memory: 9 MB}\n"
    )
    found = {name: {limit.name: limit.text for limit in case.limits} for name, case in cases(tmp_path, text).items()}
    shared = {"max_memory": "4 MB", "max_size": "4 MB", "max_flips": "4%", "min_coverage": "4%"}
    assert found == {
        "m/original @ online": {"max_memory": "5 MB"},
        "m/original @ night": {"max_memory": "6 MB"},
        "m/int8-dynamic @ online": shared | {"max_size": "2 MB"},
        "m/int8-dynamic @ night": shared | {"max_memory": "1 MB", "max_size": "3 MB", "min_coverage": "3%"},
        "m/bf16 @ online": shared | {"max_memory": "9 MB"},
        "m/bf16 @ night": shared | {"max_memory": "3 MB", "max_size": "3 MB", "min_coverage": "3%"},
        "m/student @ online": {name: text for name, text in shared.items() if name != "min_coverage"},
        "m/student @ night": {"max_memory": "2 MB", "max_size": "3 MB", "max_flips": "4%"},
    }


def test_cases_on_one_device_stand_together(tmp_path: Path) -> None:
    """Each device has workers of its own, which end when another one's turn comes."""
    text = START + "    recipes: {int8-dynamic: , bf16: }\n    original: {max_size: 1 MB}\n"
    text += "    workloads: {a: {device: cpu}, b: {device: cuda}, c: {batch_size: 5}}\n"
    path = tmp_path / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    devices = [case.workload.device for case in load_budgets(path, relative_to=tmp_path).cases]
    assert devices == [*(6 * ["cpu"]), *(3 * ["cuda"])]


def test_a_waiver_is_of_one_row(tmp_path: Path) -> None:
    waiver = 'waivers:\n  - {case: "%s", limit: %s, until: "9999-01-31", reason: why}\n'
    text = (
        f"{START}    regression: {{max_slowdown: 9%}}\n"
        f"    workloads: {{a: {{batch_size: 1}}, b: {{max_size: 1 MB}}}}\n{CASES}"
    )
    found = cases(tmp_path, text + waiver % ("m/int8-dynamic  @  b", "max_size"))
    assert [limit.waiver is not None for limit in found["m/int8-dynamic @ b"].limits] == [True]
    found = cases(tmp_path, text + waiver % ("m/original @ b", "max_slowdown"))
    waived = [name for name, case in found.items() if any(limit.waiver for limit in case.regression)]
    assert waived == ["m/original @ b"]
    for case, told in {
        "m/int8-dynamic": "m has workloads: name one behind the recipe, as `int8-dynamic @ a`",
        "m/int8-dynamic @ c": "m has no workload 'c'; the valid ones are a, b",
        "m/original": "m has workloads: name one behind the recipe, as `original @ a`",
        "m/bf16 @ b": "m has no recipe 'bf16'",
    }.items():
        with pytest.raises(BudgetsError, match="case of waiver 1: ") as refusal:
            cases(tmp_path, text + waiver % (case, "max_size"))
        assert told in str(refusal.value)


AT = START + CASES + "    workloads:\n"
MISTAKES = [
    (AT + "      '': {batch_size: 1}\n", 9, "the workload '' of m is empty; give it a name, for example `online`"),
    (AT + "      a@b: {batch_size: 1}\n", 9, "contains `@`, which would make the test's name unclear; use `-`"),
    (AT + "      'a::b': {batch_size: 1}\n", 9, "contains `::`, which would make"),
    (AT + "      a/b: {batch_size: 1}\n", 9, "contains `/`, which would make"),
    (AT + "      a: {batchsize: 1}\n", 9, "m @ a: unknown key 'batchsize'; did you mean 'batch_size'?"),
    (AT + "      a: {max_memroy: 1 MB}\n", 9, "m @ a: unknown key 'max_memroy'; did you mean 'max_memory'?"),
    (
        AT + "      a: {max_slowdown: 1%}\n",
        9,
        "`max_slowdown` is a limit against the base; move it below `regression:`",
    ),
    (AT + "      a: {batch_size: 0}\n", 9, "batch_size of m @ a: 0 is not a whole number of at least 1"),
    (AT + "      a: {batch_size: 2}\n      b: {threads: 3}\n", 10, "'b' of m is measured as 'a' in line 9 is"),
    (START + CASES + "    workloads: {}\n", 8, "workloads of m: there is nothing in it; add at least one entry"),
    (START + "    workloads: {a: }\n" + CASES, 7, "m @ a: a mapping is needed here"),
    (
        START + "    workloads: {a: {batch_size: 1}}\n    recipes: {int8-dynamic @ a: }\n",
        8,
        "'int8-dynamic @ a' of m names a workload; state what holds for it there only below `workloads:`",
    ),
    (
        START + "    workloads: {night: {batch_size: 1}}\n    recipes: {bf16: {workloads: {nigth: {max_size: 1 B}}}}\n",
        8,
        "m has no workload 'nigth'; did you mean 'night'?",
    ),
    (
        START + "    workloads: {a: {batch_size: 1}}\n    recipes: {bf16: {workloads: {a: {batch_size: 1}}}}\n",
        8,
        "m/bf16 @ a: unknown limit 'batch_size'",
    ),
    (
        START.replace("    data: a:b\n", "    example_inputs: a:b\n") + CASES + "    workloads: {a: {max_flips: 1%}}\n",
        8,
        "max_flips of m is about answers, and the model has no `data:`; add it",
    ),
]


@pytest.mark.parametrize(("text", "line", "told"), MISTAKES)
def test_each_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    with pytest.raises(BudgetsError) as refusal:
        cases(tmp_path, text)
    assert [problem.line for problem in refusal.value.problems if told in problem.message] == [line], refusal.value


def test_rows_by_name() -> None:
    """A recipe may hold an `@` of its own: only one between blanks stands before a workload."""
    for recipe, workload in (("int8-dynamic", "night"), ("prune-structured(keep='a@b')", ""), ("a + b", "x y")):
        assert without_workload(at_workload(recipe, workload)) == (recipe, workload)
