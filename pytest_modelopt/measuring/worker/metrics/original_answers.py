"""What the original answered, batch by batch in a file, for metrics that hold a variant against it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from pytest_modelopt.measuring.protocol import VariantError

_LENGTH = 8
_MOST_OF_THE_DISK = 4
"""At most one part in so many of what is free."""


class Writer:
    """Takes one tensor for each batch. The file is whole after `close`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._path = path
        self._room = shutil.disk_usage(path.parent).free // _MOST_OF_THE_DISK

    def add(self, tensor: torch.Tensor) -> None:
        buffer = io.BytesIO()
        torch.save(tensor.contiguous().clone(), buffer)  # of a view, the whole storage would be written
        self._room -= buffer.tell()
        if self._room < 0:
            raise VariantError(
                f"the original's outputs, which the variants are compared with, take more than a quarter of the disk "
                f"space that is free in {self._path.parent}: give fewer examples, or make the outputs smaller with "
                "`prepare: package.module:function` below `metric`"
            )
        self._file.write(buffer.tell().to_bytes(_LENGTH, "big"))
        self._file.write(buffer.getbuffer())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[torch.Tensor]:
    """The tensors that a Writer took, in order."""
    with path.open("rb") as file:
        while length := file.read(_LENGTH):
            blob = io.BytesIO(file.read(int.from_bytes(length, "big")))
            yield torch.load(blob, weights_only=True)


class Reference:
    """The original's tensors for a variant's batches, one by one."""

    def __init__(self, path: Path) -> None:
        self._tensors = read(path)

    def next(self, like: torch.Tensor, metric: str) -> torch.Tensor:
        """What the original answered to the next batch; `like` is what the variant did."""
        before = next(self._tensors, None)
        if before is None:
            raise VariantError(
                "the variant was given more batches than the original: the data must be the same each time"
            )
        if before.shape != like.shape:
            raise VariantError(
                f"{metric} compares outputs one by one, but on the same inputs the original gives the shape "
                f"{tuple(before.shape)} and the variant {tuple(like.shape)}"
            )
        return before
