"""Metrics that take probabilities: which of torchmetrics these are, and that no logits are guessed at."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import pytest
import torch
import torchmetrics
from torchmetrics import classification

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.metrics.torchmetrics import ClassMetric, Sums, takes_probabilities
from tests.measuring.answering import answer

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def whole(most: int, *shape: int) -> torch.Tensor:
    return torch.randint(most, shape, generator=GENERATOR)


CLASSES = [
    (name, kind)
    for name, kind in vars(classification).items()
    if inspect.isclass(kind) and re.match("(Binary|Multiclass|Multilabel)", name) and "Fairness" not in name
]
MADE_WITH = {
    "num_classes": 4,
    "num_labels": 4,
    "min_precision": 0.5,
    "min_recall": 0.5,
    "min_specificity": 0.5,
    "min_sensitivity": 0.5,
    "beta": 1.0,
    "num_groups": 2,
}


@pytest.mark.parametrize(("name", "kind"), CLASSES, ids=[name for name, _ in CLASSES])
def test_those_that_guess_whether_they_are_given_probabilities_are_known(
    name: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own function for that is watched, while each class is updated with logits."""
    import torchmetrics.utilities.compute as library

    real, guessed = library.normalize_logits_if_needed, []

    def watched(tensor: torch.Tensor, normalization: Any) -> Any:
        guessed.append(normalization)
        return real(tensor, normalization)

    for module in [module for full, module in sys.modules.items() if full.startswith("torchmetrics.functional")]:
        if hasattr(module, "normalize_logits_if_needed"):
            monkeypatch.setattr(module, "normalize_logits_if_needed", watched)
    required = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    classes = ["num_classes"] if "num_classes" in inspect.signature(kind).parameters else []
    metric = kind(**{argument: MADE_WITH[argument] for argument in {*required, *classes}})
    outputs = normal(8) if name.startswith("Binary") else normal(8, 4)
    targets = whole(2, 8) if name.startswith("Binary") else whole(2, 8, 4) if "Multilabel" in name else whole(4, 8)
    groups = [whole(2, 8)] if "Group" in name else []
    metric.update(outputs, targets, *groups)
    assert bool(takes_probabilities(metric)) is bool(guessed)
    assert set(guessed) <= {takes_probabilities(metric)}


def test_there_are_classes_of_both_kinds() -> None:
    """Else the test above would show nothing."""
    assert len(CLASSES) > 50
    assert takes_probabilities(classification.MulticlassAccuracy(num_classes=3)) == ""
    assert takes_probabilities(classification.MulticlassAUROC(num_classes=3)) == "softmax"


def test_logits_are_refused_where_probabilities_are_taken() -> None:
    """The first batch would be taken for probabilities, the second one not."""
    outputs = torch.cat([torch.rand(64, 4, generator=GENERATOR), 3 * normal(64, 4)])
    scorer = ClassMetric(Sums(classification.MultilabelF1Score(num_labels=4)), "F1", None, is_prepared=False)
    told = r"takes probabilities, and the model returns values from -.* \(in the batch of example 64\): add `activa"
    with pytest.raises(VariantError, match=told):
        answer(outputs, whole(2, 128, 4), scorer)


def test_probabilities_need_no_activation() -> None:
    outputs, targets = torch.rand(100, 4, generator=GENERATOR), whole(2, 100, 4)
    scorer = ClassMetric(Sums(classification.MultilabelF1Score(num_labels=4)), "F1", None, is_prepared=False)
    expected = classification.MultilabelF1Score(num_labels=4)(outputs, targets)
    assert answer(outputs, targets, scorer).score == pytest.approx(float(expected))


def test_a_metric_within_another_one_takes_what_that_takes() -> None:
    wrapped = torchmetrics.MinMaxMetric(classification.BinaryAUROC())
    assert takes_probabilities(wrapped) == "sigmoid"


@pytest.mark.parametrize(
    ("activation", "outputs", "told"),
    [
        ("softmax", torch.zeros(8), "needs outputs of shape (examples, classes), and got (8,) float32"),
        ("sigmoid", torch.zeros(8, dtype=torch.long), "is for outputs of floating point"),
    ],
)
def test_an_activation_that_does_not_fit_the_outputs(activation: Any, outputs: torch.Tensor, told: str) -> None:
    scorer = ClassMetric(Sums(classification.BinaryAccuracy()), "A", activation, is_prepared=False)
    with pytest.raises(VariantError, match=re.escape(told)):
        answer(outputs, whole(2, 8), scorer)
