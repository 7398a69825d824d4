"""Metrics that are functions of the project's own: of everything at once, or of single examples."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.protocol import Answers, VariantError
from pytest_modelopt.measuring.worker.metrics.functions import PerExample, WholeSet
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepared
from tests.measuring.answering import answer

OUTPUTS = torch.randn(130, 3, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(130, 3, generator=torch.Generator().manual_seed(1))
SLICES = [0] * 50 + [1] * 79 + [2]


def rmse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean().sqrt()


def distance(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs().mean(dim=1)


def whole(function: Any, **how: Any) -> Answers:
    return answer(OUTPUTS, TARGETS, WholeSet(function, "m:f", is_prepared=False), **how)


def single(function: Any, **how: Any) -> Answers:
    return answer(OUTPUTS, TARGETS, PerExample(function, "m:f"), **how)


def test_a_function_sees_all_outputs_at_once() -> None:
    answers = whole(rmse, size=7)
    assert answers.score == pytest.approx(float(rmse(OUTPUTS, TARGETS)))
    assert answers.predictions is None
    assert "is a function of all examples at once" in answers.why_not["interval"]


def test_a_function_is_called_for_each_slice_again() -> None:
    def needs_two(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if len(outputs) < 2:
            raise ValueError("two at least")
        return rmse(outputs, targets)

    expected = tuple(float(rmse(OUTPUTS[part], TARGETS[part])) for part in (slice(0, 50), slice(50, 129)))
    assert whole(needs_two, size=7, slices=SLICES).slice_scores == (*(pytest.approx(value) for value in expected), None)


def test_one_value_for_each_example_has_slices_and_summands() -> None:
    each = distance(OUTPUTS, TARGETS).double()
    for size in (1, 33, 130):
        answers = single(distance, size=size, slices=SLICES)
        assert answers.score == pytest.approx(float(each.mean()))
        parts = (each[:50], each[50:129], each[129:])
        assert answers.slice_scores == pytest.approx(tuple(float(part.mean()) for part in parts))
        assert answers.width == 1
        assert list(answers.summands or ()) == pytest.approx(each.tolist())


@pytest.mark.parametrize("made", [lambda column: column.numpy(), lambda column: column.tolist(), lambda c: c > 0.9])
def test_any_column_of_numbers_will_do(made: Any) -> None:
    expected = torch.as_tensor(made(distance(OUTPUTS, TARGETS))).double().mean()
    answers = single(lambda outputs, targets: made(distance(outputs, targets)))
    assert answers.score == pytest.approx(float(expected))


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor([2.0]), numpy.float32(2), numpy.array([2])])
def test_any_number_will_do(value: Any) -> None:
    assert whole(lambda outputs, targets: value).score == 2.0


def broken(outputs: Any, targets: Any) -> Any:
    raise ZeroDivisionError("no positives")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (broken, "the metric `m:f` raised ZeroDivisionError: no positives (outputs (130, 3) float32, targets (130, 3)"),
        (lambda outputs, targets: math.nan, "the metric `m:f` returned nan, which is not a finite number"),
        (distance, "the metric `m:f` returned a tensor of shape (130,), not one number; return one, or one for each"),
        (lambda outputs, targets: None, "returned nothing, not one number"),
        (lambda outputs, targets: "2", "returned a str, not one number"),
        (lambda outputs, targets: {"f1": 1}, "returned a dict with f1, not one number"),
    ],
)
def test_a_function_that_gives_no_number_says_why(function: Any, told: str) -> None:
    with pytest.raises(VariantError, match=re.escape(told)):
        whole(function)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (broken, "the metric `m:f` raised ZeroDivisionError: no positives (outputs (64, 3) float32, targets (64, 3)"),
        (rmse, "must return one number for each of the 64 examples of a batch; it returned the shape ()"),
        (lambda o, t: distance(o, t)[:-1], "for each of the 64 examples of a batch; it returned the shape (63,)"),
        (lambda o, t: {"f1": 1}, "for each of the 64 examples of a batch; it returned a dict"),
        (lambda o, t: distance(o, t).where(o[:, 0] != OUTPUTS[70, 0], math.nan), "returned nan for example 70"),
    ],
)
def test_a_function_of_single_examples_that_gives_no_column_says_why(function: Any, told: str) -> None:
    with pytest.raises(VariantError, match=re.escape(told)):
        single(function)


def test_outputs_of_several_shapes_come_as_a_list_of_examples_and_have_slices() -> None:
    class Lengths(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), int(x[0]) + 1)

    def count(outputs: Any, targets: Any) -> Any:
        assert isinstance(outputs, list)
        return sum(example.numel() for example in outputs)

    scorer = WholeSet(count, "m:f", is_prepared=False)
    answers = answer(Lengths(), torch.zeros(4), scorer, size=2, slices=[0, 1, 1, 1], examples=4)
    assert answers.score == 2 * 1 + 2 * 3
    assert answers.slice_scores == (1, 1 + 3 + 3)


def test_lists_of_targets_are_one_list_and_a_tuple_of_tensors_is_one_tuple() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x.float(), -x.float()

    def check(outputs: Any, targets: Any) -> float:
        assert [part.tolist() for part in outputs] == [[0.0, 1.0, 2.0, 3.0], [0.0, -1.0, -2.0, -3.0]]
        return float(targets == ["a", "b", "c", "d"])

    scorer = WholeSet(check, "m:f", is_prepared=False)
    assert answer(Pair(), ["a", "b", "c", "d"], scorer, size=2, examples=4).score == 1.0


def test_lists_that_prepare_makes_are_one_list() -> None:
    def to_text(outputs: torch.Tensor, targets: torch.Tensor) -> Any:
        return [f"{float(x):.0f}" for x in outputs], targets

    scorer = Prepared(WholeSet(lambda o, t: float(o == ["1", "2", "3"]), "m:f", is_prepared=True), to_text, "m:p")
    assert answer(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3), scorer, size=2).score == 1.0


def test_a_model_that_writes_every_answer_into_one_tensor_is_scored_right() -> None:
    class Reuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.buffer = torch.zeros(4)

        def forward(self, x: torch.Tensor) -> Any:
            return {"out": self.buffer.copy_(x)}

    scorer = WholeSet(lambda outputs, targets: outputs["out"].sum(), "m:f", is_prepared=False)
    assert answer(Reuses(), torch.zeros(8), scorer, size=4, examples=8).score == sum(range(8))
