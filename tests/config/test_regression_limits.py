"""`regression:` in budgets.yaml: which limits hold for the original and for each recipe, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.marker import parse_marker
from pytest_modelopt.config.problems import BudgetsError, Problem
from pytest_modelopt.limits.catalogue import misfit, parse_value, unknown_limit
from pytest_modelopt.limits.units import UnitError, parse_growth
from pytest_modelopt.results.verdicts import Limit

FULL = """\
version: 1
models:
  vit:
    factory: shop:model
    data: shop:data
    budget: {max_accuracy_drop: 1 pp}
    recipes:
      int8-dynamic:
        max_memory: 3 MiB
        regression:
          max_slowdown: {limit: 150%, level: warn}
      low-rank:
    regression:
      max_size_growth: 2%
      max_slowdown: 10%
      max_accuracy_loss: 0.5 pp
  speech:
    factory: shop:model
    data: shop:data
    recipes:
      low-rank:
        regression: {max_memory_growth: 0.05}
"""

HEAD = """\
version: 1
models:
  m:
    factory: shop:model
    data: shop:data
    recipes:
      low-rank:
"""


def load(folder: Path, text: str) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder)


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(BudgetsError) as refusal:
        load(folder, text)
    return refusal.value.problems


def stated(limits: tuple[Limit, ...]) -> list[tuple[object, ...]]:
    return [(limit.name, limit.value, limit.text, limit.level, limit.line) for limit in limits]


MODELS_OWN = [
    ("max_size_growth", 0.02, "2%", "error", 14),
    ("max_accuracy_loss", 0.005, "0.5 pp", "error", 16),
    ("max_slowdown", 0.1, "10%", "error", 15),
]


def test_a_models_limits_hold_for_its_original_and_its_recipes_and_a_recipes_own_go_before_them(tmp_path: Path) -> None:
    budgets = load(tmp_path, FULL)
    vit, speech = budgets.models
    assert (stated(vit.regression), stated(speech.regression)) == (MODELS_OWN, [])
    assert {case.name: stated(case.regression) for case in budgets.cases} == {
        "vit/int8-dynamic": [*MODELS_OWN[:2], ("max_slowdown", 1.5, "150%", "warn", 11)],
        "vit/low-rank(ratio=0.5)": MODELS_OWN,
        "speech/low-rank(ratio=0.5)": [("max_memory_growth", 0.05, "0.05", "error", 22)],
    }
    assert [case.model for case in budgets.cases] == [vit, vit, speech]


def test_they_are_kept_apart_from_the_limits_against_the_original(tmp_path: Path) -> None:
    first, second, third = load(tmp_path, FULL).cases
    assert [limit.name for limit in first.limits] == ["max_memory", "max_accuracy_drop"]
    assert [limit.name for limit in second.limits] == ["max_accuracy_drop"]
    assert third.limits == ()


def test_a_file_knows_its_name_as_its_limits_do(tmp_path: Path) -> None:
    assert load(tmp_path, FULL).file == "budgets.yaml"


@pytest.mark.parametrize(
    ("written", "share"),
    [("0%", 0.0), ("10%", 0.1), ("150%", 1.5), (" 2.5 % ", 0.025), (0.1, 0.1), (1.0, 1.0), (0, 0.0)],
)
def test_growth_is_a_share_that_may_exceed_the_whole(written: object, share: float) -> None:
    assert parse_growth(written) == share
    assert parse_value("max_slowdown", written) == parse_value("max_size_growth", written) == share


@pytest.mark.parametrize(
    ("written", "phrase"),
    [
        (50, "50 could mean 50% or 5000%"),
        (1.5, "1.5 could mean 1.5% or 150%; write `1.5%` or `150%`"),
        ("-1%", "negative"),
        ("2 pp", "did you mean `2%`"),
        ("1.1x", "does not fit"),
        (1, "1 could mean 1% or 100%; write `1%` or `100%`"),
        ("1e999%", "more than 11 times as much, which is no limit"),
        (float("inf"), "not a finite number"),
        (True, "yes or no"),
        (None, "there is no value"),
    ],
)
def test_what_is_no_growth_is_refused_with_the_way_out(written: object, phrase: str) -> None:
    with pytest.raises(UnitError) as refusal:
        parse_growth(written)
    assert phrase in str(refusal.value)


@pytest.mark.parametrize("name", ["min_memory_reduction", "min_size_reduction", "max_flips", "min_coverage"])
def test_a_share_of_a_whole_may_not_exceed_it(name: str) -> None:
    with pytest.raises(UnitError, match="more than the whole"):
        parse_value(name, "150%")


def in_regression(lines: str) -> str:
    return f"{HEAD}    regression:\n      {lines}\n"


def in_recipe(lines: str) -> str:
    return f"{HEAD}        regression:\n          {lines}\n"


MISTAKES = [
    (
        in_regression("max_memory: 3 MiB"),
        9,
        ["regression of m: `max_memory` is no limit", "`budget:`"],
    ),
    (in_recipe("min_speedup: 2x"), 9, ["regression of m/low-rank: `min_speedup` is no", "directly below the recipe"]),
    (
        f"{HEAD}        max_slowdown: 10%\n",
        8,
        ["m/low-rank: `max_slowdown` is a limit against", "`regression:`"],
    ),
    (f"{HEAD}    budget: {{max_size_growth: 2%}}\n", 8, ["budget of m: `max_size_growth` is a limit against the base"]),
    (f"{HEAD}    max_slowdown: 10%\n", 8, ["m: `max_slowdown` is a limit; move it below `regression:` of a model"]),
    (f"{HEAD}        regresion: {{}}\n", 8, ["m/low-rank: unknown key 'regresion'; did you mean 'regression'?"]),
    (f"{HEAD}    regresion: {{}}\n", 8, ["m: unknown key 'regresion'; did you mean 'regression'?"]),
    (in_regression("max_slowdwon: 10%"), 9, ["regression of m: unknown limit 'max_slowdwon'; did you mean 'max_slow"]),
    (
        in_regression("colour: red"),
        9,
        ["unknown limit 'colour'; the valid ones are max_memory_growth, "],
    ),
    (in_regression("max_slowdown: 10"), 9, ["max_slowdown of m: 10 could mean 10% or 1000%"]),
    (in_recipe("max_slowdown: -10%"), 9, ["max_slowdown of m/low-rank: '-10%' is negative"]),
    (in_regression("max_accuracy_loss: 1%"), 9, ["max_accuracy_loss of m: '1%' is ambiguous"]),
    (in_regression("max_accuracy_loss: 1"), 9, ["write 1 pp"]),
    (in_regression("max_slowdown: {level: warn}"), 9, ["max_slowdown of m has no `limit`"]),
    (in_recipe("max_slowdown: {limit: 1%, levle: warn}"), 9, ["unknown key 'levle'; did you mean 'level'?"]),
    (in_regression("max_slowdown: {limit: 1%, level: off}"), 9, ["there is no level false"]),
    (f"{HEAD}    regression: 3\n", 8, ["regression of m: a mapping is needed here", "3"]),
    (f"{HEAD}        regression: [a]\n", 8, ["regression of m/low-rank: a mapping is needed here"]),
    (f"{HEAD}    metric: sqnr\n    regression: {{max_accuracy_loss: 1}}\n", 9, ["with `sqnr` nothing can drop"]),
]


@pytest.mark.parametrize(("text", "line", "phrases"), MISTAKES, ids=[row[2][0] for row in MISTAKES])
def test_each_mistake_is_named_with_its_line_and_the_way_out(
    tmp_path: Path, text: str, line: int, phrases: list[str]
) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.line == line
    assert all(phrase in problem.message for phrase in phrases), problem.message


def test_the_list_of_valid_limits_is_that_of_the_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, in_regression("colour: red"))
    assert problem.message.endswith(
        "the valid ones are max_memory_growth, max_size_growth, max_accuracy_loss, max_slowdown"
    )
    (problem,) = problems(tmp_path, f"{HEAD}        colour: red\n")
    assert problem.message.endswith("max_slice_drop, max_flips, min_coverage")
    assert unknown_limit("colour").endswith("max_accuracy_loss, max_slowdown")


def test_a_loss_in_the_metrics_own_unit_is_read_as_a_drop_is(tmp_path: Path) -> None:
    text = f"{HEAD}    metric: shop:error\n    regression: {{max_accuracy_loss: 1.5}}\n"
    assert load(tmp_path, text).models[0].regression[0].value == 1.5
    limit = Limit("max_accuracy_loss", 1.0, "1", "error", "budgets.yaml", 1)
    assert "write 1 pp" in str(misfit(limit, "accuracy"))
    assert "nothing can drop" in str(misfit(limit, "sqnr"))
    assert misfit(limit, "shop:error") is None


def test_a_marker_takes_no_limit_against_a_base() -> None:
    with pytest.raises(BudgetsError) as refusal:
        parse_marker((), {"max_slowdown": "10%", "max_memry": "1 MiB"}, file="test_a.py", line=3)
    against, unknown = (str(problem) for problem in refusal.value.problems)
    assert against.startswith("test_a.py:3: model_budget: `max_slowdown` is a limit against the base")
    assert "budgets.yaml, below `regression:` of a model" in against
    assert "did you mean 'max_memory'?" in unknown
