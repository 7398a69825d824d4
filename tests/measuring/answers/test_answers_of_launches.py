"""Answers of two launches of one model: alike up to rounding, and not by accident."""

from __future__ import annotations

import math
from array import array
from types import SimpleNamespace

import numpy
import pytest
import torch

from pytest_modelopt.measuring.protocol import Sample
from pytest_modelopt.measuring.worker.answers.quality import SAMPLED, sample
from pytest_modelopt.optimizing.quantization import torch_ao

BASE = Sample("float32(3,)", array("d", [1.0, -100.0, 0.0]))


@pytest.mark.parametrize("values", [[1.0, -100.0, 0.0], [1.05, -100.05, 0.05]])
def test_rounding_does_not_make_another_model(values: list[float]) -> None:
    assert BASE.is_like(Sample(BASE.kinds, array("d", values)))


@pytest.mark.parametrize(
    "values", [[1.2, -100.0, 0.0], [1.0, -100.0], [math.nan, -100.0, 0.0], [math.inf, -100.0, 0.0]]
)
def test_another_answer_is_another_model(values: list[float]) -> None:
    assert not BASE.is_like(Sample(BASE.kinds, array("d", values)))


def test_the_same_numbers_in_another_type_are_another_model() -> None:
    assert not BASE.is_like(Sample("float16(3,)", BASE.values))


def test_what_is_not_finite_is_like_itself() -> None:
    odd = Sample("float32(3,)", array("d", [math.nan, math.inf, 1.0]))
    assert odd.is_like(odd)


def test_tensors_are_found_wherever_a_model_returns_them() -> None:
    inner = torch.tensor([1.0, 2.0])
    for outputs in (
        inner,
        (inner,),
        {"logits": inner},
        SimpleNamespace(logits=inner),
        inner.numpy(),
        inner.to_sparse(),
    ):
        assert list(sample(outputs).values) == [1.0, 2.0]
    assert list(sample([numpy.float32(1.0).reshape(1), 3]).values) == [1.0]
    assert sample(["text", 3]) == Sample("", array("d"))


def test_large_answers_are_sampled_and_their_shapes_kept_whole() -> None:
    found = sample((torch.zeros(SAMPLED), torch.ones(7, 2)))
    assert len(found.values) == SAMPLED
    assert found.kinds == f"torch.float32({SAMPLED},);torch.float32(7, 2)"


def test_quantized_and_complex_answers_have_numbers() -> None:
    with torch_ao.quiet():
        quantized = torch.quantize_per_tensor(torch.tensor([0.5, 1.0]), 0.5, 0, torch.qint8)
    assert list(sample(quantized).values) == [0.5, 1.0]
    assert list(sample(torch.tensor([1 + 2j])).values) == [1.0, 2.0]
