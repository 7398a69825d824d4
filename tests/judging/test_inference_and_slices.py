"""What limits on accuracy are about, and where slices come from, as a budgets file states them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_modelopt.config.loader import BudgetsFile, load_budgets
from pytest_modelopt.config.marker import parse_marker
from pytest_modelopt.config.problems import BudgetsError

MODELS = """\
models:
  plain:
    factory: a:b
    data: a:b
    recipes: {int8-dynamic: {max_slice_drop: 5 pp}}
  other:
    factory: a:b
    data: a:b
    slices: shop.vision:camera
    inference: INFERENCE
    recipes: {int8-dynamic: }
"""


def load(folder: Path, text: str) -> BudgetsFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder)


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    with pytest.raises(BudgetsError) as refusal:
        load(folder, text)
    return [(problem.line, problem.message) for problem in refusal.value.problems]


@pytest.mark.parametrize(
    ("defaults", "of_model", "expected"),
    [
        ("", "population", ["set", "population"]),
        ("", "set", ["set", "set"]),
        ("defaults: {inference: population}\n", "set", ["population", "set"]),
        ("defaults: {inference: population}\n", "population", ["population", "population"]),
    ],
)
def test_the_models_word_goes_before_the_defaults(
    tmp_path: Path, defaults: str, of_model: str, expected: list[str]
) -> None:
    budgets = load(tmp_path, f"version: 1\n{defaults}{MODELS.replace('INFERENCE', of_model)}")
    assert [case.model.inference for case in budgets.cases] == expected


def test_a_model_that_says_nothing_is_judged_on_its_examples_and_names_no_slices(tmp_path: Path) -> None:
    plain, other = load(tmp_path, f"version: 1\n{MODELS.replace('INFERENCE', 'set')}").models
    assert (plain.inference, plain.slices, other.slices) == ("set", None, "shop.vision:camera")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("Population", "'Population' does not say what limits on accuracy are about; write `set` for these very"),
        ("", "nothing does not say what limits on accuracy are about"),
        ("popluation", "; did you mean 'population'?"),
        ("95%", "or `population` for all that they were drawn from"),
        ("[set]", "a list does not say"),
        ("true", "true does not say"),
    ],
)
def test_another_word_is_refused_where_it_stands(tmp_path: Path, written: str, told: str) -> None:
    text = f"version: 1\ndefaults:\n  inference: {written}\n{MODELS.replace('INFERENCE', written)}"
    found = problems(tmp_path, text)
    assert [line for line, _ in found] == [3, 13]
    assert found[0][1].startswith("inference of defaults: ")
    assert found[1][1].startswith("inference of other: ")
    assert all(told in message for _, message in found)


def test_slices_must_name_a_function(tmp_path: Path) -> None:
    text = MODELS.replace("INFERENCE", "set").replace("shop.vision:camera", "shop.vision.camera")
    ((line, message),) = problems(tmp_path, f"version: 1\n{text}")
    assert line == 10
    assert message == (
        "slices of other: 'shop.vision.camera' does not name a function; write `package.module:function`, for example "
        "`shop.vision:load_model`; did you mean 'shop.vision:camera'?"
    )


def test_a_slice_limit_is_read_in_points_and_stands_in_a_marker_too(tmp_path: Path) -> None:
    case = load(tmp_path, f"version: 1\n{MODELS.replace('INFERENCE', 'set')}").cases[0]
    assert [(limit.name, limit.value, limit.line) for limit in case.limits] == [("max_slice_drop", 0.05, 6)]
    marked = parse_marker((), {"max_slice_drop": "5 pp"}, file="test_it.py", line=3)
    assert [(limit.name, limit.value) for limit in marked.limits] == [("max_slice_drop", 0.05)]
    wrong = MODELS.replace("INFERENCE", "set").replace("5 pp", "5")
    ((_, message),) = problems(tmp_path, f"version: 1\n{wrong}")
    assert "if you mean percentage points, write 5 pp" in message
