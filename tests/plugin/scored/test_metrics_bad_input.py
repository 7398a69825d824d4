"""What a metric cannot score is the error of its own case: one clear message for each mistake."""

from __future__ import annotations

import pytest

REGRESSION, LABELS = "tasks:regression_data", "tasks:labels_data"
# name -> (factory, data, metric, message)
BAD = {
    "raises": (
        "regression",
        REGRESSION,
        "tasks:raises",
        "the metric `tasks:raises` raised ZeroDivisionError: no posi*",
    ),
    "nan": ("regression", REGRESSION, "tasks:nothing", "the metric `tasks:nothing` returned nan, which is not a fini*"),
    "shape": (
        "regression",
        REGRESSION,
        "tasks:column",
        "`tasks:column` returned a tensor of shape (200,), not one nu*",
    ),
    "short": (
        "regression",
        REGRESSION,
        "{name: 'tasks:column_too_short', per_example: true}",
        "for each of the 64 examples of a batch; it returned the shape (63,)*",
    ),
    "logits": (
        "labels",
        LABELS,
        "{name: torchmetrics.classification.MultilabelF1Score, arguments: {num_labels: 5}}",
        "takes probabilities, and the model returns values from -* to *: add `activation: sigmoid` below `metric`*",
    ),
    "range": ("labels", "tasks:out_of_range", "top-3", "target 5 of example 5 is not one of the model's 5 classes*"),
    "range-of-torchmetrics": (
        "labels",
        "tasks:out_of_range",
        "{name: torchmetrics.classification.MulticlassF1Score, arguments: {num_classes: 5}}",
        "target 5 of example 5 is not one of the 5 classes of the metric `MulticlassF1Score(num_classes=5)`*",
    ),
    "one": (
        "regression",
        "tasks:one_example",
        "torchmetrics.regression.R2Score",
        "the metric `R2Score` raised ValueError: Needs at least two samples*",
    ),
    "zero": (
        "regression",
        "tasks:no_example",
        "{name: 'tasks:column', per_example: true}",
        "the data is empty, so there is no example to measure on*",
    ),
    "direction": (
        "labels",
        LABELS,
        "torchmetrics.classification.BinaryStatScores",
        "the metric `BinaryStatScores` does not say whether higher is better: add `higher_is_better: true`*",
    ),
    "too-many": (
        "labels",
        "tasks:out_of_range",
        "top-5",
        "top-5 is right whatever a model of 5 classes answers; write*",
    ),
    "function": (
        "labels",
        LABELS,
        "{name: 'tasks:raises', activation: sigmoid}",
        "`activation` is for a class, and the metric `tasks:raises` is a function; remove it*",
    ),
}


def case(name: str, factory: str, data: str, metric: str) -> str:
    return (
        f"  {name}:\n    factory: tasks:{factory}\n    data: {data}\n    metric: {metric}\n"
        "    recipes: {int8-dynamic: }\n"
    )


def test_what_cannot_be_scored_is_the_error_of_its_own_case(tasks_project: pytest.Pytester) -> None:
    good = case("good", "regression", REGRESSION, "{name: 'tasks:column', per_example: true}")
    cases = [case(name, *parts) for name, (*parts, _) in BAD.items()]
    text = f"version: 1\nmodels:\n{''.join(cases)}{good}"
    (tasks_project.path / "budgets.yaml").write_text(text, encoding="utf-8")
    result = tasks_project.runpytest("--modelopt", "--modelopt-time-limit=1 ms")
    result.assert_outcomes(passed=1, failed=len(BAD))
    for *_, message in BAD.values():
        result.stdout.fnmatch_lines([f"*{message}"])
