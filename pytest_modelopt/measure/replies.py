"""What a worker sends back: plain values that the pytest process can read without torch."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from pytest_modelopt.record.model import Coverage


class VariantError(Exception):
    """The variant cannot be measured; the message says why and what to do, in words for the model's owner."""


@dataclass(frozen=True)
class Loaded:
    """What is known of a variant once it stands: notes about the model, and what the recipe changed."""

    notes: tuple[str, ...]
    coverage: Coverage | None
    metric_name: str
    higher_is_better: bool


@dataclass(frozen=True)
class Memory:
    """What the tensor meter found. With a foreign `runtime` it has no figures: that memory is not torch's."""

    weights_bytes: int | None
    call_peak_bytes: int | None
    runtime: str | None = None


@dataclass(frozen=True)
class Answers:
    """The score of one variant on all examples, in the metric's unit, and what it was made from."""

    score: float
    examples: int
    data_fingerprint: str
    predictions: array[int] | None
    """Predicted class of each example; None for a metric that is not right-or-wrong per example."""
    correct: bytes | None
    """1 or 0 per example, in the same order."""
