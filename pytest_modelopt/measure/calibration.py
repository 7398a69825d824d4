"""Which calibration data the recipes really took, and how much of it they are scored on: examples by their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch

from pytest_modelopt.measure.loading import Batch, examples, leaves
from pytest_modelopt.measure.quality import update_with_bytes
from pytest_modelopt.recipes.calling import Inputs
from pytest_modelopt.record.observations import Calibration

MOST_EXAMPLES = 20_000
MOST_BYTES = 256 * 1024 * 1024
"""Bounds of what is hashed, of each of the two data sets."""
MOST_CLASSES = 300


class CalibrationSeen:
    """Looks on while recipes draw batches of calibration, and then at the evaluation data."""

    def __init__(self) -> None:
        self._batches = 0
        self._hashes: set[bytes] = set()
        self._room = _Room()
        self._classes: set[int] | None = set()
        self._found: set[bytes] | None = None

    @property
    def was_used(self) -> bool:
        return self._batches > 0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of one pass, each looked at when it is drawn."""
        for number, (inputs, targets) in enumerate(batches, 1):
            self._batches = max(self._batches, number)
            self._hashes.update(self._room.hashes(inputs))
            self._add_classes(targets)
            yield inputs, targets

    def compare(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of the evaluation data, looked at on their way to the model."""
        room, self._found = _Room(), set()
        for inputs, targets in batches:
            self._found.update(self._hashes.intersection(room.hashes(inputs)))
            yield inputs, targets

    def calibration(self) -> Calibration | None:
        """None where nothing was drawn."""
        if not self.was_used:
            return None
        return Calibration(
            batches=self._batches,
            examples=len(self._hashes),
            looked_at=self._room.taken,
            leaked=None if self._found is None else len(self._found),
            classes=tuple(sorted(self._classes)) if self._classes else None,
            is_complete=not self._room.is_full,
        )

    def _add_classes(self, targets: torch.Tensor) -> None:
        if self._classes is None:
            return
        if targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
            self._classes = None
            return
        self._classes.update(targets.tolist())
        if len(self._classes) > MOST_CLASSES:
            self._classes = None


class _Room:
    """Hashes of examples, one by one, until a bound is reached."""

    def __init__(self) -> None:
        self.taken = self._bytes = 0

    @property
    def is_full(self) -> bool:
        return self.taken >= MOST_EXAMPLES or self._bytes >= MOST_BYTES

    def hashes(self, inputs: Inputs) -> list[bytes]:
        """SHA-256 of each example of a batch: the bytes, type and shape of all its tensors."""
        rows = [tensor.detach().cpu() for tensor in leaves(inputs)]
        found = []
        for index in range(examples(inputs)):
            if self.is_full:
                break
            digest = hashlib.sha256()
            for tensor in rows:
                digest.update(f"{tensor.dtype}{tuple(tensor.shape[1:])}".encode())
                update_with_bytes(digest, tensor[index])
                self._bytes += tensor[index].nbytes
            found.append(digest.digest())
            self.taken += 1
        return found
