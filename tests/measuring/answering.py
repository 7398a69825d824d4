"""Models whose answers are written down, and a pass over them: what the tests of the metrics share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.protocol import Answers
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.measuring.worker.metrics.scored_outputs import pick
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Scorer


class Table(nn.Module):
    """Answers with a fixed table of outputs, one row for each input index."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, index: torch.Tensor) -> Any:
        return self.outputs[index]


def batches(targets: Any, examples: int, size: int = 64, slices: Sequence[int] | None = None) -> Iterator[Batch]:
    """The indices of a table as inputs, `size` at a time."""
    for first in range(0, examples, size):
        positions = range(first, min(first + size, examples))
        yield Batch(
            torch.tensor(list(positions)),
            None if targets is None else pick(targets, list(positions)),
            first,
            None if slices is None else tuple(slices[position] for position in positions),
        )


def answer(
    outputs: torch.Tensor | nn.Module,
    targets: Any,
    scorer: Scorer,
    *,
    size: int = 64,
    slices: Sequence[int] | None = None,
    examples: int | None = None,
) -> Answers:
    """One pass of a model, or of one that answers with the table `outputs`, over all examples."""
    model = Table(outputs) if isinstance(outputs, torch.Tensor) else outputs
    count = len(outputs) if isinstance(outputs, torch.Tensor) else examples
    assert count is not None
    named = 0 if slices is None else max(slices) + 1
    return quality.answer(model, batches(targets, count, size, slices), scorer, Device("cpu"), named)
