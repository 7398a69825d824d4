"""A score that is the mean of one value for each example: over all of them, and over each slice."""

from __future__ import annotations

import math
from array import array

import torch

from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score


class Means:
    """Takes the values batch by batch."""

    def __init__(self) -> None:
        self._values = array("d")
        self._slices = array("q")

    def add(self, values: torch.Tensor, batch: Batch) -> None:
        """One finite value for each example of the batch."""
        self._values.extend(values.double().tolist())
        self._slices.extend(batch.slices or ())

    def score(self, slices: int) -> Score:
        """The mean, which any examples have by their sum: the values are the summands."""
        return Score(
            value=math.fsum(self._values) / len(self._values),
            slice_scores=self._of_slices(slices) if slices else None,
            summands=self._values,
            width=1,
        )

    def _of_slices(self, slices: int) -> tuple[float | None, ...]:
        of: list[list[float]] = [[] for _ in range(slices)]
        for index, value in zip(self._slices, self._values, strict=True):
            of[index].append(value)
        return tuple(math.fsum(values) / len(values) if values else None for values in of)
