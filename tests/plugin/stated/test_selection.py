"""Cases of budgets.yaml are selected by their recipe in any spelling, as the file has it or as the table shows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_modelopt.plugin.collecting.selection import _EXPRESSION, _keyword
from tests.plugin.small_project import collected

Project = Callable[..., pytest.Pytester]

BUDGETS = """
version: 1
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    recipes:
      low-rank( ratio = 0.50 ) + int8-dynamic: {max_size: 1 MB}
      low-rank: {max_size: 1 MB}
      int8-dynamic: {max_size: 1 MB}
  images:
    factory: shop:convolutions
    data: shop:images
    recipes:
      prune-structured(ratio=0.5, keep='0,1'): {max_size: 1 MB}
"""
BOTH, RANK, INT8, PRUNED = (
    "budgets.yaml::classifier::low-rank(ratio=0.5)+int8-dynamic",
    "budgets.yaml::classifier::low-rank(ratio=0.5)",
    "budgets.yaml::classifier::int8-dynamic",
    "budgets.yaml::images::prune-structured(ratio=0.5, keep='0,1')",
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["budgets.yaml::classifier::low-rank( ratio = 0.50 ) + int8-dynamic"], [BOTH]),
        (["budgets.yaml::classifier/low-rank( ratio = 0.50 ) + int8-dynamic"], [BOTH]),
        (["budgets.yaml::classifier/low-rank+int8-dynamic", "budgets.yaml::classifier::low-rank"], [BOTH, RANK]),
        (["./budgets.yaml::images/prune-structured(keep='0,1', ratio=.5)"], [PRUNED]),
        (["budgets.yaml::classifier"], [BOTH, RANK, INT8]),
        (["--deselect", "budgets.yaml::classifier/low-rank + int8-dynamic"], [RANK, INT8, PRUNED]),
        (["--deselect", "budgets.yaml::classifier"], [PRUNED]),
        (["-k", "low-rank( ratio = 0.50 ) + int8-dynamic"], [BOTH]),
        (["-k", "low-rank + int8-dynamic"], [BOTH]),
        (["-k", "classifier/low-rank(ratio=0.5)"], [BOTH, RANK]),
        (["-k", "low-rank(ratio=0.5) and not low-rank + int8-dynamic"], [RANK]),
        (["-k", "not (low-rank + int8-dynamic or images)"], [RANK, INT8]),
        (["-k", "prune-structured(ratio=0.5, keep='0,1') or classifier/int8-dynamic"], [INT8, PRUNED]),
        (["-k", "low-rank(ratio=0.4)"], []),
        (["-k", "(low-rank or images) and not int8"], [RANK, PRUNED]),
        (["-k", "low-rank_ratio_0.5_+int8"], [BOTH]),
    ],
)
def test_an_expression_as_it_is_written_selects_its_item(
    project: Project, arguments: list[str], expected: list[str]
) -> None:
    assert collected(project(BUDGETS), *arguments) == expected


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("budgets.yaml::classifier/low-rank(ratio=0.4)", "did you mean 'classifier/low-rank(ratio=0.5)'?"),
        ("budgets.yaml::clasifier::int8-dynamic", "did you mean 'classifier/int8-dynamic'?"),
        ("budgets.yaml::classifier::int8-dynamc", "did you mean 'classifier/int8-dynamic'?"),
    ],
)
def test_a_case_that_is_not_there_is_named_with_the_nearest_one(project: Project, argument: str, said: str) -> None:
    result = project(BUDGETS).runpytest("--modelopt", argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: budgets.yaml has no case {argument.partition('::')[2]!r}; {said}"])


def test_comparisons_with_a_base_are_named_by_the_same_words(project: Project) -> None:
    name = "budgets.yaml::classifier::low-rank + int8-dynamic against base"
    result = project(BUDGETS).runpytest("--modelopt", "--collect-only", "-q", name)
    result.stderr.fnmatch_lines([f"ERROR: not found: *{BOTH} against base*"])


@pytest.mark.parametrize(
    "selection",
    [("-k", "classifier/low-rank + int8-dynamic"), ("budgets.yaml::classifier/low-rank + int8-dynamic",)],
)
def test_workers_of_xdist_select_the_same(project: Project, selection: tuple[str, ...]) -> None:
    result = project(BUDGETS).runpytest("--modelopt", "-n1", "--modelopt-time-limit", "1 ms", *selection)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["modelopt: PARTIAL: 1 of 4 cases ran*"])


@pytest.mark.parametrize(
    "text", ["", "test_a or test_b", "a+b", "not (slow)", "bf16", "x(y=1)", "and", "or + not", "(("]
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert _EXPRESSION.sub(_keyword, text) == text
