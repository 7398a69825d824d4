"""Answers on a growing part of the examples, before all of them are scored: enough for a candidate that is far off."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.protocol import Look
from pytest_modelopt.results.answers import Agreement

LOOKS = (1 / 32, 1 / 16, 1 / 8)
"""Shares of the examples that are drawn by the end of each look."""
_LEAST = 32
"""Examples of a look: fewer show nothing for certain."""


def looked(context: WorkerContext, original: Measured, candidate: Measured, name: str) -> Iterator[Agreement]:
    """The agreement on the examples that were drawn so far, which grow from one look to the next (`LOOKS`).

    Nothing where answers are not right-or-wrong, where no example can be drawn, or where all are soon scored. The
    whole pass, which follows, knows nothing of it.
    """
    before = original.answers
    if before is None or before.correct is None or before.predictions is None or candidate.variant.generation:
        return
    compares = candidate.variant.metric.is_unlabelled
    counts = [0, 0, 0, 0]
    start = 0.0
    for share in LOOKS:
        if share * before.examples < _LEAST:
            continue
        text = f"looking at some answers of the {candidate.variant.label}"
        found: Look | None = context.ask(candidate, name, "look", text, stage="score", first=start, last=share)
        if found is None:
            return
        start = share
        for number, predicted, correct in zip(found.numbers, found.predictions, found.correct, strict=True):
            flips = predicted != before.predictions[number]
            was, now = bool(before.correct[number]), not flips if compares else bool(correct)
            counts = [a + b for a, b in zip(counts, (1, was and not now, now and not was, flips), strict=True)]
        examples, lost, won, flipped = counts
        yield Agreement(examples, lost, won, flipped)
