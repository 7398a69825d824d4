"""A part of the examples: rows of batches, drawn by the hash of their inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from pytest_modelopt.measuring.variant import DataPart
from pytest_modelopt.measuring.worker.data.batches import NoExamples
from pytest_modelopt.measuring.worker.data.hashing import hashes_of_inputs
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.modules.nested_values import cut, joined


def of_part(batches: Iterable[Batch], part: DataPart | None) -> Iterator[Batch]:
    """The examples of the part, in the order of the data; None: all.

    A batch of which no example can be taken out belongs to the part of its first example as a whole.

    Raises:
        NoExamples: none belongs to it.
    """
    if part is None:
        yield from batches
        return
    first = 0
    for batch in batches:
        hashes = hashes_of_inputs(batch)
        if batch.is_cut:
            rows = [row for row, digest in enumerate(hashes) if part.holds(digest)]
        else:
            rows = list(range(batch.examples)) if hashes and part.holds(hashes[0]) else []
        if rows:
            yield replace(taken(batch, rows), first=first)
            first += len(rows)
    if not first:
        raise NoExamples(f"part {part.index + 1} of {part.parts} of the data is empty: there are too few examples")


def taken(batch: Batch, rows: list[int]) -> Batch:
    """The batch with these rows only, of which there is at least one."""
    if len(rows) == batch.examples:
        return batch
    inputs = joined([cut(batch.inputs, slice(row, row + 1)) for row in rows])
    return replace(batch, inputs=inputs, targets=_targets(batch.targets, rows))


def _targets(targets: Targets | None, rows: list[int]) -> Targets | None:
    if isinstance(targets, torch.Tensor):
        return targets[torch.tensor(rows)]
    return None if targets is None else [targets[row] for row in rows]
