"""What a variant of another revision answers, in a file: head's worker scores that by head's own metric.

A metric of the project's own is code of a revision. Were each side scored by its own, a metric that became kinder would
hide a loss, and one that only head has could score no base.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.calls.structure import own
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score

_LENGTH = 8
_MOST_OF_THE_DISK = 4
"""At most one part in so many of what is free."""


class Recorder:
    """A scorer that writes the outputs of a pass to a file, and scores nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._room = shutil.disk_usage(path.parent).free // _MOST_OF_THE_DISK

    def add(self, outputs: Any, batch: Batch) -> None:
        del batch
        buffer = io.BytesIO()
        torch.save(own(outputs), buffer)  # of a view, the whole storage would be written
        self._room -= buffer.tell()
        if self._room < 0:
            raise VariantError(
                f"the base's outputs, which head's metric scores, take more than a quarter of the disk space that is "
                f"free in {self._path.parent}: give fewer examples"
            )
        self._file.write(buffer.tell().to_bytes(_LENGTH, "big"))
        self._file.write(buffer.getbuffer())

    def score(self, slices: int) -> Score:
        del slices
        self._file.close()
        return Score()


class Replayed:
    """Called as the model was, it gives the outputs that a `Recorder` wrote, batch by batch."""

    def __init__(self, path: Path) -> None:
        self._outputs = _read(path)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        del inputs, named
        try:
            return next(self._outputs)
        except StopIteration:
            raise VariantError("the base was given fewer batches than head: the data must be the same") from None


def _read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while length := file.read(_LENGTH):
            blob = io.BytesIO(file.read(int.from_bytes(length, "big")))
            yield torch.load(blob, weights_only=False)  # of our own worker, in a folder that only this user can read
