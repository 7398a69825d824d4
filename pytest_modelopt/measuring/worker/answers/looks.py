"""Answers to examples that are drawn at random: some of them show that a candidate's answers are far off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from pytest_modelopt.measuring.worker.data.parts import taken
from pytest_modelopt.measuring.worker.metrics.scorer import Batch


class NotDrawn(Exception):
    """A batch of which no example can be taken out: whole batches are no random examples."""


def drawn(batches: Iterable[Batch], first: float, last: float) -> Iterator[tuple[Batch, list[int]]]:
    """The examples whose number draws a share in [first, last), batch by batch, with their numbers in the data.

    What an example draws depends on its number only, so the order of the data does not matter, ranges that do not
    overlap are disjoint, and each range is a random sample.

    Raises:
        NotDrawn: examples cannot be taken out of a batch.
    """
    for batch in batches:
        if not batch.is_cut:
            raise NotDrawn
        rows = [row for row in range(batch.examples) if first <= _draw(batch.first + row) < last]
        if rows:
            yield taken(batch, rows), [batch.first + row for row in rows]


def _draw(number: int) -> float:
    digest = hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8, key=b"looks").digest()
    return int.from_bytes(digest, "little") / 2**64
