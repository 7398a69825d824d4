"""Targets of the whole data in short: their shape, and which classes they name."""

from __future__ import annotations

from array import array

import torch

from pytest_modelopt.measuring.protocol import KnownTargets
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.optimizing.modules.nested_values import tensors

MOST_CLASSES = 10_000
"""Different whole numbers among the targets; more of them are counts or measured values, and no classes."""


class TargetsSeen:
    """Fed with each batch of the data, in order."""

    def __init__(self) -> None:
        self._kinds: set[tuple[tuple[int, ...], torch.dtype] | None] = set()
        self._sizes: set[tuple[tuple[int, ...], ...]] = set()
        self._first: dict[int, int] | None = {}

    def add(self, batch: Batch) -> None:
        targets, inputs = batch.targets, tensors(batch.inputs)
        if not isinstance(targets, torch.Tensor) or not batch.is_cut or not inputs:
            self._kinds.add(None)
            return
        self._kinds.add((tuple(targets.shape[1:]), targets.dtype))
        self._sizes.add(tuple(tuple(tensor.shape[1:]) for tensor in inputs))
        if self._first is None or targets.is_floating_point() or targets.is_complex():
            self._first = None
        elif targets.numel():
            rows = targets.reshape(len(targets), -1).long()
            for value in torch.unique(rows).tolist():
                if value not in self._first:
                    self._first[value] = batch.first + int((rows == value).any(dim=1).nonzero()[0])
            if len(self._first) > MOST_CLASSES:
                self._first = None

    def known(self) -> KnownTargets | None:
        """None where nothing holds for all examples."""
        kind = next(iter(self._kinds)) if len(self._kinds) == 1 == len(self._sizes) else None
        if kind is None:
            return None
        shape, dtype = kind
        named = None if self._first is None else (array("q", self._first.keys()), array("q", self._first.values()))
        return KnownTargets(shape, str(dtype).removeprefix("torch."), named)
