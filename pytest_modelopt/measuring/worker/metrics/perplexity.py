"""Perplexity of the data's own tokens, and what else a pass over them says of each next token.

The outputs that are scored are those of `generation_answers.Forced`: reduced step by step, since the probabilities of
all tokens at all positions would take gigabytes.
"""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import Tokens, VariantError
from pytest_modelopt.measuring.worker.metrics.original_answers import Reference, Writer
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score
from pytest_modelopt.results.generation import Divergence


class Perplexity:
    """exp of the mean over all positions of -log p(the data's token), in nats; the summands are by sequence, whose
    tokens are not independent.

    `keep`, `reference`: where the original's probabilities are written, and read by a variant.
    """

    def __init__(self, keep: Path | None = None, reference: Path | None = None) -> None:
        self._kept = Writer(keep) if keep is not None else None
        self._reference = Reference(reference) if reference is not None else None
        self._losses = array("d")
        self._slices = array("q")
        self._most_probable = array("q")
        self._positions = 0
        self._divergences: list[torch.Tensor] = []

    def add(self, outputs: Any, batch: Batch) -> None:
        losses = outputs["losses"]
        self._refuse_no_probability(losses, batch)
        self._positions = losses.shape[1]
        self._losses.extend(losses.mean(dim=1).tolist())
        self._slices.extend(batch.slices or ())
        self._most_probable.extend(outputs["most_probable"].flatten().tolist())
        probabilities = outputs.get("log_probabilities")
        if probabilities is None:
            return
        if self._kept is not None:
            self._kept.add(probabilities)
        if self._reference is not None:
            before = self._reference.next(probabilities, "perplexity")
            self._divergences.append(_divergences(before, probabilities))

    def _refuse_no_probability(self, losses: torch.Tensor, batch: Batch) -> None:
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong):
            row, position = wrong[0].tolist()
            raise VariantError(
                f"the model gives the data's token no probability, or NaN, at position {position} after the prompt of "
                f"sequence {batch.first + row}: perplexity has no value"
            )

    def score(self, slices: int) -> Score:
        if self._kept is not None:
            self._kept.close()
        of: list[list[float]] = [[] for _ in range(slices)]
        for index, loss in zip(self._slices, self._losses, strict=False):
            of[index].append(loss)
        return Score(
            value=_perplexity(self._losses),
            slice_scores=tuple(_perplexity(losses) if losses else None for losses in of) if slices else None,
            summands=self._losses,
            width=1,
        )

    def tokens(self) -> Tokens:
        """After `score`."""
        return Tokens(self._most_probable, self._positions, self._divergence())

    def _divergence(self) -> Divergence | None:
        if not self._divergences:
            return None
        found = torch.cat(self._divergences)
        if not bool(found.isfinite().all()):
            return None
        return Divergence(float(found.mean()), float(found.max()), len(found))


def of_sums(sums: torch.Tensor, examples: int) -> float:
    """The perplexity of some sequences by the sum of their mean losses."""
    return _exp(float(sums[0]) / examples)


def _perplexity(losses: Any) -> float:
    return _exp(math.fsum(losses) / len(losses))


def _exp(loss: float) -> float:
    if loss > 700:
        raise VariantError(f"the mean loss is {loss:.4g} nats, whose perplexity is beyond all numbers")
    return math.exp(loss)


def _divergences(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """KL(before, now) in nats of each position, from log-probabilities (sequences, positions, vocabulary)."""
    before, now = before.double(), now.double()
    terms = before.exp() * (before - now)
    return torch.where(before == -math.inf, 0.0, terms).sum(dim=-1).flatten().clamp(min=0.0)
