"""Budgets stated beside the tests that need them; run with `pytest --modelopt`, skipped without it.

The budgets of every recipe stand in budgets.yaml in the folder above. Here stands what only a test can say: a live
model instead of a factory, part of the data, a figure compared with another.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from example_project import speech, vision


@pytest.mark.model_budget(max_memory="2 MiB", min_size_reduction="75%", max_accuracy_drop="1 pp")
def test_the_reader_of_digits_fits_a_small_device(modelopt: Any) -> None:
    model = vision.load_model()
    comparison = modelopt(model, "prune-structured(ratio=0.5) + int8-dynamic", data=vision.test_data())
    assert comparison.variant.score >= 0.97


def test_unstructured_pruning_saves_nothing(modelopt: Any) -> None:
    """Zeros take as much room as any other number: to the byte, in memory and in the file."""
    comparison = modelopt(
        "example_project.vision:load_model", "prune-unstructured(ratio=0.5)", data="example_project.vision:test_data"
    )
    assert comparison.memory_reduction == 0
    assert comparison.size_reduction == 0


@pytest.mark.model_budget("spoken-digits/int8-dynamic", max_accuracy_drop="1 pp")
def test_every_digit_survives_quantization(modelopt: Any) -> None:
    """The limits of budgets.yaml, one of them loosened, on the first five digits alone."""
    spectrograms, digits = speech.test_data()
    few = digits < 5
    comparison = modelopt(speech.load_model(), "int8-dynamic", data=(spectrograms[few], digits[few]))
    assert comparison.agreement.flips <= 4


def test_the_optimized_model_can_be_used_as_it_is(optimize: Any) -> None:
    images, digits = vision.test_data()
    optimized = optimize(vision.load_model, "int8-dynamic", example_inputs=images[:1])
    assert optimized.coverage.share > 0.9
    assert any("MultiheadAttention" in note for note in optimized.notes), "it says what it left alone"
    with torch.inference_mode():
        right = (optimized.load()(images).argmax(1) == digits).float().mean()
    assert right >= 0.97
