"""Metrics for data without labels: the variant against what the original answered, read from the file it left.

The original's own pass writes that file (`keep`); without a file to read, it is compared with itself.
"""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.metrics.means import Means
from pytest_modelopt.measuring.worker.metrics.original_answers import Reference, Writer
from pytest_modelopt.measuring.worker.metrics.scored_outputs import class_scores, output_tensor
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score

MOST_DB = 300.0
"""The most that is reported as a signal-to-noise ratio; identical outputs have it, too: no infinity in a record."""


class _Compared:
    """Keeps the original's side of the comparison, or reads it."""

    def __init__(self, keep: Path | None, reference: Path | None) -> None:
        self._kept = Writer(keep) if keep is not None else None
        self._reference = Reference(reference) if reference is not None else None

    def before(self, now: torch.Tensor, metric: str) -> torch.Tensor:
        """The original's answer to the batch that is now answered by `now`."""
        if self._kept is not None:
            self._kept.add(now)
        return now if self._reference is None else self._reference.next(now, metric)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()


class Agreement:
    """Share of examples for which the variant predicts the class that the original predicts."""

    def __init__(self, keep: Path | None, reference: Path | None) -> None:
        self._compared = _Compared(keep, reference)
        self._predictions = array("q")
        self._correct = bytearray()
        self._classes = 0

    def add(self, outputs: Any, batch: Batch) -> None:
        scores = class_scores(outputs, batch, "agreement")
        if scores.ndim != 2 or len(scores) != batch.examples or scores.shape[1] < 2:
            raise VariantError(
                f"agreement needs outputs of shape (examples, classes), and got {tuple(scores.shape)} for "
                f"{batch.examples} examples; outputs of any shape can be compared with `metric: cosine` or `sqnr`"
            )
        predicted = scores.argmax(dim=1)
        self._predictions.extend(predicted.tolist())
        self._classes = max(self._classes, scores.shape[1])
        before = self._compared.before(predicted, "agreement")
        self._correct.extend((predicted == before).to(torch.uint8).tolist())

    def score(self, slices: int) -> Score:
        del slices  # counted from `correct`
        self._compared.close()
        return Score(
            value=sum(self._correct) / len(self._correct),
            predictions=self._predictions,
            correct=bytes(self._correct),
            classes=self._classes,
        )


class Cosine:
    """Mean over the examples of the cosine between the variant's outputs and the original's, each flattened.

    Equal outputs have the cosine 1, also where all of them are zero; zeros against anything else have 0.
    """

    def __init__(self, keep: Path | None, reference: Path | None) -> None:
        self._compared = _Compared(keep, reference)
        self._means = Means()

    def add(self, outputs: Any, batch: Batch) -> None:
        now = _rows(output_tensor(outputs, batch, "cosine"), batch, "cosine")
        before, now = _numbers(self._compared.before(now, "cosine"), now, batch, "cosine")
        norms = now.norm(dim=1) * before.norm(dim=1)
        cosines = (now * before).sum(dim=1) / torch.where(norms > 0, norms, 1.0)
        equal = (now == before).all(dim=1)
        # Rounding must not lift anything above 1, nor push what is equal below it.
        self._means.add(torch.where(equal, 1.0, cosines.clamp(-1.0, 1.0)), batch)

    def score(self, slices: int) -> Score:
        self._compared.close()
        return self._means.score(slices)


class Sqnr:
    """Signal-to-quantization-noise ratio: the original's power over the power of the differences, in decibels."""

    def __init__(self, keep: Path | None, reference: Path | None) -> None:
        self._is_original = reference is None
        self._compared = _Compared(keep, reference)
        self._signal = self._noise = 0.0

    def add(self, outputs: Any, batch: Batch) -> None:
        now = _rows(output_tensor(outputs, batch, "sqnr"), batch, "sqnr")
        before, now = _numbers(self._compared.before(now, "sqnr"), now, batch, "sqnr")
        self._signal += float(before.square().sum())
        self._noise += float((before - now).square().sum())

    def score(self, slices: int) -> Score:
        del slices
        self._compared.close()
        no_drop = "sqnr gives the original no score of its own, so nothing can drop"
        why_not = {"slices": no_drop, "interval": no_drop}
        if self._is_original:
            own = "the original does not differ from itself, so only variants have an sqnr"
            return Score(why_not={"score": own, **why_not})
        if self._signal == 0:
            raise VariantError(
                "sqnr has no meaning here, since all outputs of the original are zero: check its weights, or take "
                "`metric: agreement`"
            )
        ratio = math.inf if self._noise == 0 else 10 * math.log10(self._signal / self._noise)
        if ratio <= MOST_DB:
            return Score(ratio, why_not=why_not)
        note = f"its outputs are the original's, number for number, which counts as {MOST_DB:g} dB"
        if self._noise:
            note = f"its outputs differ from the original's by less than {MOST_DB:g} dB can tell, and count as that"
        return Score(MOST_DB, notes=(note,), why_not=why_not)


def _rows(outputs: torch.Tensor, batch: Batch, metric: str) -> torch.Tensor:
    """The outputs as one row for each example."""
    if outputs.ndim == 0 or len(outputs) != batch.examples:
        raise VariantError(
            f"{metric} needs one output for each example, and got {tuple(outputs.shape)} for {batch.examples} examples"
        )
    if outputs.is_complex():
        outputs = torch.view_as_real(outputs)
    return outputs.reshape(len(outputs), -1)


def _numbers(before: torch.Tensor, now: torch.Tensor, batch: Batch, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Both without what is -inf in both: no part of either vector. Of one alone, nothing can be measured."""
    forbidden = before == -math.inf
    differs = (forbidden != (now == -math.inf)).any(dim=1).nonzero()
    if len(differs):
        raise VariantError(
            f"{metric} has no value where only one side is -inf, first in example {batch.first + int(differs[0])}: "
            "compare classes with `metric: agreement`, or let `prepare: package.module:function` choose other numbers"
        )
    return before.double().masked_fill(forbidden, 0.0), now.double().masked_fill(forbidden, 0.0)
