"""Accuracy and top-K: what they count, how ties go, and what does not fit them."""

from __future__ import annotations

import math
import re
import statistics
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.metrics.classification import Classification
from pytest_modelopt.results.observations import Spread
from tests.measuring.answering import answer


def accuracy() -> Classification:
    return Classification(1, "accuracy")


def drawn(seed: int, examples: int = 150, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(examples, classes, generator=generator)
    return outputs, torch.randint(classes, (examples,), generator=generator)


def test_accuracy_counts_the_largest_output() -> None:
    outputs = torch.tensor([[1.0, 2.0], [5.0, -1.0], [0.0, 0.5], [3.0, 1.0]])
    answers = answer(outputs, torch.tensor([1, 0, 0, 1]), accuracy())
    assert answers.score == 0.5
    assert answers.predictions is not None
    assert answers.targets is not None
    assert (list(answers.predictions), list(answers.targets)) == ([1, 0, 1, 0], [1, 0, 0, 1])
    assert answers.correct == bytes([1, 1, 0, 0])
    assert answers.classes == 2


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_is_what_torchmetrics_computes(k: int) -> None:
    outputs, targets = drawn(k)
    expected = torchmetrics.classification.MulticlassAccuracy(num_classes=10, top_k=k, average="micro")
    answers = answer(outputs, targets, Classification(k, f"top-{k}"))
    assert answers.score == pytest.approx(float(expected(outputs, targets)))
    assert answers.predictions is not None
    assert list(answers.predictions) == outputs.argmax(dim=1).tolist()


def test_of_equal_scores_the_class_with_the_lower_index_goes_first() -> None:
    outputs = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(4, 1)
    assert answer(outputs, torch.arange(4), Classification(2, "top-2")).correct == bytes([1, 1, 0, 0])
    assert answer(outputs, torch.arange(4), accuracy()).correct == bytes([1, 0, 0, 0])


def test_with_any_ties_exactly_k_targets_would_be_right() -> None:
    outputs = torch.randint(3, (50, 8), generator=torch.Generator().manual_seed(0)).float()
    for k in (1, 3, 7):
        right = [answer(outputs, torch.full((50,), c), Classification(k, "top-k")).correct for c in range(8)]
        assert [sum(bool(column[row]) for column in right if column) for row in range(50)] == [k] * 50


def test_how_the_data_is_cut_changes_nothing() -> None:
    outputs, targets = drawn(0)
    cut = [answer(outputs, targets, Classification(3, "top-3"), size=size) for size in (1, 7, 150)]
    assert len({(a.score, a.correct, tuple(a.predictions or ())) for a in cut}) == 1


@pytest.mark.parametrize(
    "targets", [[1, 0, 1], torch.tensor([1, 0, 1], dtype=torch.uint8), torch.tensor([1, 0, 1]) > 0]
)
def test_whole_numbers_of_any_kind_are_targets(targets: Any) -> None:
    outputs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert answer(outputs, targets, accuracy()).correct == bytes([1, 1, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_an_error_before_anything_is_made_of_them(bad: float) -> None:
    outputs = torch.zeros(100, 2)
    outputs[71, 1] = bad
    with pytest.raises(VariantError, match="outputs are not finite: 1 values are NaN or infinite, first in example 71"):
        answer(outputs, torch.zeros(100, dtype=torch.long), accuracy())


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.long), "accuracy needs outputs of shape (examples, classes)"),
        (torch.zeros(4, 2), torch.zeros(4), "targets (4,) float32"),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.long), "targets (4, 1) int64 for 4 examples"),
        (torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]), "target 2 of example 2 is not one of the model's 2 classes"),
        (torch.zeros(4, 2), torch.tensor([0, 1, -1, 0]), "target -1 of example 2"),
        (torch.zeros(4, 2), ["a", "b", "c", "d"], "accuracy needs integer targets of shape (examples,), and the data"),
    ],
)
def test_data_that_does_not_fit_is_refused(outputs: torch.Tensor, targets: Any, message: str) -> None:
    with pytest.raises(VariantError, match=re.escape(message)):
        answer(outputs, targets, accuracy())


@pytest.mark.parametrize("k", [4, 5])
def test_a_k_that_makes_every_answer_right_is_refused(k: int) -> None:
    with pytest.raises(
        VariantError, match=f"top-{k} is right whatever a model of 4 classes answers; write a K below 4"
    ):
        answer(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), Classification(k, f"top-{k}"))


def test_data_that_does_not_fit_the_model_names_the_shape() -> None:
    with pytest.raises(VariantError, match=re.escape("the model does not accept the data: RuntimeError: ")) as caught:
        answer(nn.Linear(5, 2), torch.zeros(64, dtype=torch.long), accuracy(), examples=64)
    assert "(input (64,) int64)" in str(caught.value)


def test_outputs_with_logits_are_understood_and_others_are_refused() -> None:
    table = torch.eye(3)

    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"logits": table[x], "loss": torch.tensor(0.0)}

    class Beside(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return table[x], (table[x].unsqueeze(1), None)

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return [table[x], table[x]]

    for model in (Wrapped(), Beside()):
        assert answer(model, torch.arange(3), accuracy(), examples=3).score == 1.0
    with pytest.raises(VariantError, match="the model returned a list with 2 tensors of the shape"):
        answer(Odd(), torch.arange(3), accuracy(), examples=3)


def test_minus_infinity_is_the_score_of_what_is_forbidden() -> None:
    outputs = torch.tensor([[-math.inf, 1.0, 0.0], [-math.inf, -math.inf, 2.0], [3.0, -math.inf, 2.0]])
    found = answer(outputs, torch.tensor([1, 2, 1]), accuracy(), size=2)
    assert (found.correct, list(found.predictions or ())) == (bytes([1, 1, 0]), [1, 2, 0])


def test_the_spread_of_the_scores_is_of_finite_numbers() -> None:
    outputs = torch.tensor([[-math.inf, 1.0, 0.0], [-math.inf, 0.0, 2.0], [3.0, 0.0, 2.0]])
    found = answer(outputs, torch.tensor([1, 2, 1]), accuracy(), size=2).spread
    numbers = [1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 2.0]
    deviation: Any = pytest.approx(statistics.stdev(numbers))
    assert found == Spread(7, 4, deviation, 3 + 1)
    assert answer(torch.ones(5, 3), torch.zeros(5).long(), accuracy()).spread == Spread(15, 1, 0.0, 15)


def test_what_stands_beside_the_scores_may_hold_anything() -> None:
    class Beside(nn.Module):
        def forward(self, index: torch.Tensor) -> Any:
            return torch.eye(4)[index], torch.full((4,), math.nan), torch.full((9, 9), math.inf)

    assert answer(Beside(), torch.arange(4), accuracy(), examples=4).score == 1.0
