"""Metrics as budgets files and tests state them: every form, and one sentence with its line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pytest_modelopt.config.errors import parse_metric
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.config.schema import json_schema
from pytest_modelopt.limits.catalogue import misfit
from pytest_modelopt.results.metric import MetricSpec, is_share
from pytest_modelopt.results.source import Carried
from pytest_modelopt.results.verdicts import Limit

HEAD = "version: 1\nmodels:\n  m:\n    factory: shop:model\n    data: shop:data\n"


def text_with(metric: str, limits: str = "") -> str:
    """Line 6 and what follows state the metric."""
    return f"{HEAD}    metric: {metric}\n    recipes:\n      low-rank: {limits}\n"


def load(folder: Path, text: str) -> MetricSpec:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    return load_budgets(path, relative_to=folder).models[0].metric


FORMS = {
    "accuracy": MetricSpec(),
    "top-5": MetricSpec("top-5"),
    "agreement": MetricSpec("agreement"),
    "sqnr": MetricSpec("sqnr"),
    "torchmetrics.text.WordErrorRate": MetricSpec("torchmetrics.text.WordErrorRate"),
    "shop.scores:f1": MetricSpec("shop.scores:f1"),
    "shop.scores:Errors.mean": MetricSpec("shop.scores:Errors.mean"),
    "{name: accuracy}": MetricSpec(),
    "{name: cosine, prepare: shop:first, higher_is_better: true}": MetricSpec(
        "cosine", prepare="shop:first", higher_is_better=True
    ),
    "{name: torchmetrics.classification.MultilabelF1Score, arguments: {num_labels: 5, average: macro}, "
    "activation: sigmoid, prepare: shop:first, higher_is_better: true}": MetricSpec(
        "torchmetrics.classification.MultilabelF1Score",
        (("num_labels", 5), ("average", "macro")),
        "sigmoid",
        "shop:first",
        True,
    ),
    "{name: 'shop:Own', arguments: {a: [1, 2.5, null], b: {c: true}, d: x}}": MetricSpec(
        "shop:Own", (("a", [1, 2.5, None]), ("b", {"c": True}), ("d", "x"))
    ),
    "{name: 'shop:each', per_example: true, higher_is_better: false}": MetricSpec(
        "shop:each", higher_is_better=False, per_example=True
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path: Path, form: str) -> None:
    text = text_with(form)
    assert load(tmp_path, text) == FORMS[form]
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(text))


def test_without_a_metric_it_is_accuracy(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + "    recipes: {low-rank: }\n") == MetricSpec()


CLASS = "torchmetrics.text.WordErrorRate"
MISTAKES = [
    # (metric, line, words, whether an editor with the JSON Schema sees it, too)
    ("acuracy", 6, ["metric of m: 'acuracy' is not a metric; write `accuracy`, ", "did you mean 'accuracy'?"], True),
    ("top5", 6, ["'top5' is not a metric", "did you mean 'top-5'?"], True),
    ("Top 5", 6, ["did you mean 'top-5'?"], True),
    ("top-0", 6, ["'top-0' is not a metric"], True),
    ("cosin", 6, ["did you mean 'cosine'?"], True),
    ("WordErrorRate", 6, ["'WordErrorRate' is not a metric", "`torchmetrics.text.WordErrorRate`"], True),
    ("shop.scores.f1", 6, ["does not name a class", "for a function write 'shop.scores:f1'"], True),
    ("shop/scores.py:f1", 6, ["did you mean 'shop.scores:f1'?"], True),
    ("", 6, ["metric of m: there is no value"], True),
    ("5", 6, ["metric of m: 5 is not a metric"], True),
    ("[accuracy]", 6, ["metric of m: a list is not a metric"], True),
    ("{}", 6, ["metric of m has no `name`; add `name:` with the metric"], True),
    ("\n      arguments: {num_labels: 5}", 6, ["metric of m has no `name`"], True),
    (
        f"\n      name: {CLASS}\n      argument: {{a: 1}}",
        8,
        ["unknown key 'argument'", "did you mean 'arguments'?"],
        True,
    ),
    (f"\n      name: {CLASS}\n      arguments: 5", 8, ["arguments of metric of m: 5 is not a mapping"], True),
    (f"\n      name: {CLASS}\n      arguments: {{a-b: 5}}", 8, ["'a-b' is not the name of an argument"], True),
    (f"\n      name: {CLASS}\n      arguments: {{a: .nan}}", 8, ["arguments of metric of m"], False),
    (f"\n      name: {CLASS}\n      activation: sigmoide", 8, ["'sigmoide' is not an activation", "'sigmoid'?"], True),
    (f"\n      name: {CLASS}\n      activation:", 8, ["nothing is not an activation"], True),
    (
        f"\n      name: {CLASS}\n      prepare: shop.first",
        8,
        ["prepare of metric of m", "'shop:first'?"],
        True,
    ),
    (f"\n      name: {CLASS}\n      higher_is_better: 'no'", 8, ["'no' is neither `true` nor `false`"], True),
    (f"\n      name: {CLASS}\n      per_example: true", 6, ["`per_example` is for functions", "remove it"], False),
    ("{name: accuracy, arguments: {a: 1}}", 6, ["`accuracy` is built in and takes no `arguments`; remove it"], False),
    ("{name: top-5, activation: softmax}", 6, ["`top-5` is built in and takes no `activation`; remove it"], False),
    ("{name: sqnr, per_example: true}", 6, ["`sqnr` is built in and takes no `per_example`; remove it"], False),
    ("{name: cosine, higher_is_better: false}", 6, ["`cosine` is better when it is higher; remove"], False),
]


@pytest.mark.parametrize(("metric", "line", "words", "in_schema"), MISTAKES, ids=[m[0].strip()[:60] for m in MISTAKES])
def test_a_wrong_metric_is_told_with_its_line(
    tmp_path: Path, metric: str, line: int, words: list[str], in_schema: bool
) -> None:
    text = text_with(metric)
    with pytest.raises(BudgetsError) as refusal:
        load(tmp_path, text)
    (problem,) = refusal.value.problems
    assert problem.line == line
    for word in words:
        assert word in problem.message
    accepted = jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text))
    assert accepted is not in_schema


# --- in a test -------------------------------------------------------------------------------------------------------


def test_live_parts_stand_where_names_could() -> None:
    carried = Carried("metric"), Carried("prepare")
    spec = parse_metric({"name": carried[0], "prepare": carried[1], "activation": "sigmoid"}, Carried)
    assert spec == MetricSpec(carried[0], (), "sigmoid", carried[1])
    assert parse_metric("top-5", Carried) == MetricSpec("top-5")


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"name": "acuracy"}, ["metric: 'acuracy' is not a metric", "did you mean 'accuracy'?"]),
        ({"arguments": {}}, ["metric has no `name`"]),
        ({"name": "a:b", "activtion": "sigmoid"}, ["metric: unknown key 'activtion'; did you mean 'activation'?"]),
        ({"name": "a.B", "arguments": {"weights": object()}}, ["weights is a object", "give the metric itself"]),
        ({"name": "a.B", "arguments": {"w": [float("nan")]}}, ["arguments of metric: w is not a number"]),
        ({"name": "a:b", "activation": "x", "per_example": 1}, ["'x' is not an activation", "1 is neither `true`"]),
        (None, ["metric: there is no value"]),
        (5, ["metric: 5 is not a metric"]),
    ],
)
def test_a_wrong_metric_of_a_test_is_told_in_the_same_words(stated: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="metric") as refusal:
        parse_metric(stated, Carried)
    for word in words:
        assert word in str(refusal.value)
    assert type(refusal.value) is ValueError


# --- limits ----------------------------------------------------------------------------------------------------------


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(BudgetsError) as refusal:
        load(folder, text)
    return [problem.message for problem in refusal.value.problems]


def test_with_sqnr_nothing_can_drop(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, text_with("sqnr", "{max_accuracy_drop: 3}"))
    assert "with `sqnr` nothing can drop" in told
    assert "`min_accuracy: 30`" in told
    (told,) = problems(tmp_path, text_with("{name: sqnr, prepare: 'a:b'}", "{max_accuracy_drop: 3}"))
    assert "with `sqnr` nothing can drop" in told
    load(tmp_path, text_with("sqnr", "{min_accuracy: 30}"))
    for name, metric, refused in (("max_accuracy_drop", "sqnr", True), ("min_accuracy", "sqnr", False)):
        assert bool(misfit(Limit(name, 30, "30", "error", "t.py", 1), metric)) is refused


@pytest.mark.parametrize(
    ("metric", "limits", "told"),
    [
        ("top-5", "{max_accuracy_drop: 1}", "write 1 pp"),
        ("{name: agreement}", "{max_accuracy_drop: 1}", "write 1 pp"),
        ("cosine", "{max_accuracy_drop: 1 pp}", "is in percentage points, which only a metric from 0 to 1 has"),
        ("{name: sqnr}", "{min_accuracy: 97%}", "is a percentage, which only a metric from 0 to 1 has"),
    ],
)
def test_units_follow_the_metric(tmp_path: Path, metric: str, limits: str, told: str) -> None:
    (problem,) = problems(tmp_path, text_with(metric, limits))
    assert told in problem
    load(tmp_path, text_with("shop:own", limits))


def test_shares_are_known_by_their_names() -> None:
    assert [is_share(name) for name in ("accuracy", "top-5", "agreement", "cosine", "sqnr", "m:accuracy", None)] == [
        *[True] * 3,
        *[False] * 4,
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (MetricSpec("accuracy"), False),
        (MetricSpec("top-5"), False),
        (MetricSpec("sqnr"), False),
        (MetricSpec("torchmetrics.text.WordErrorRate"), False),
        (MetricSpec("accuracy", prepare="shop:prepare"), True),
        (MetricSpec("torchmetrics.text.WordErrorRate", prepare="shop:prepare"), True),
        (MetricSpec("shop:metric"), True),
        (MetricSpec("shop.metrics.Mine"), True),
    ],
)
def test_a_metric_is_of_the_project_where_code_of_it_takes_part(spec: MetricSpec, *, expected: bool) -> None:
    assert spec.is_of_project is expected
