"""The marker: the same keys and values as in the file, and every wrong argument named at once."""

from __future__ import annotations

import pytest

from pytest_modelopt.config.marker import MarkerBudget, parse_marker
from pytest_modelopt.config.problems import BudgetsError


def read(*args: object, **kwargs: object) -> MarkerBudget:
    return parse_marker(args, kwargs, file="tests/test_x.py", line=7)


def problems(*args: object, **kwargs: object) -> list[str]:
    with pytest.raises(BudgetsError) as refusal:
        read(*args, **kwargs)
    assert {(problem.file, problem.line) for problem in refusal.value.problems} == {("tests/test_x.py", 7)}
    return [problem.message for problem in refusal.value.problems]


def test_limits_are_read_as_in_the_file_and_put_in_the_catalogues_order() -> None:
    budget = read(min_speedup={"limit": 1.5, "level": "warn"}, max_memory="6 MiB", max_accuracy_drop="1 pp")
    assert budget.case is None
    assert [(one.name, one.value, one.text, one.level) for one in budget.limits] == [
        ("max_memory", 6291456.0, "6 MiB", "error"),
        ("min_speedup", 1.5, "1.5", "warn"),
        ("max_accuracy_drop", 0.01, "1 pp", "error"),
    ]
    assert {(one.file, one.line) for one in budget.limits} == {("tests/test_x.py", 7)}


def test_a_case_is_named_in_any_spelling_of_its_recipe() -> None:
    assert read("digits-vit/int8-dynamic") == MarkerBudget("digits-vit/int8-dynamic", ())
    assert read("m/prune-structured( ratio=0.30 )+ int8-dynamic").case == "m/prune-structured(ratio=0.3)+int8-dynamic"


@pytest.mark.parametrize("value", [6, "6 MiB", None, True])
def test_a_value_without_a_name_is_refused(value: object) -> None:
    (message,) = problems(value)
    assert "which limit is" in message
    assert "max_memory=" in message


def test_all_problems_of_a_marker_are_said_at_once() -> None:
    messages = problems(
        "a/int8-dynamc",
        max_memroy="6 MiB",
        max_size="6 Mb",
        max_flips={"limt": 1},
        min_coverage={"limit": "5%", "level": "warning"},
        max_latency=None,
    )
    phrases = ["did you mean 'int8-dynamic'", "did you mean 'max_memory'", "`6 MB`", "did you mean 'limit'"]
    phrases += ["max_flips has no `limit`", "did you mean 'warn'", "max_latency: there is no value"]
    assert len(messages) == len(phrases)
    for phrase, message in zip(phrases, messages, strict=True):
        assert phrase in message


def test_a_marker_without_arguments_states_nothing_and_is_refused() -> None:
    assert "states no limit" in problems()[0]


def test_two_values_without_names_are_refused() -> None:
    assert "2 values without a name" in problems("a/int8-dynamic", "b/int8-dynamic")[0]


def test_a_case_without_a_model_is_refused() -> None:
    assert "no model" in problems("/int8-dynamic")[0]
