"""Looks on while recipes draw calibration data: what they took, and that none of it is what they are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from pytest_modelopt.measuring.protocol import Examples, VariantError
from pytest_modelopt.measuring.worker.data.examples import Positions
from pytest_modelopt.measuring.worker.data.hashing import hashes_of_inputs
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Targets
from pytest_modelopt.optimizing.modules.nested_values import columns
from pytest_modelopt.results.observations import Calibration, Ranges

MOST_CLASSES = 300


class CalibrationSeen:
    """Of one variant. `refusal` is the error of a batch that its recipe may not have.

    The recipe may have caught it and gone on without calibration, so it must be asked for when the recipe is done.
    """

    def __init__(self, evaluation: Examples | None) -> None:
        """`evaluation` None: nothing is scored, so nothing is compared."""
        self.refusal: VariantError | None = None
        self._evaluation = evaluation
        self._positions: Positions | None = None
        self._batches = self._looked_at = self._constant = 0
        self._hashes: set[bytes] = set()
        self._classes: set[int] | None = set()
        self._seen: dict[str, tuple[float, float]] = {}
        self._ranges: dict[str, Ranges] = {}

    def watch(self, batches: Iterable[Batch], *, needs_targets: bool = False) -> Iterator[Batch]:
        """The batches of one pass, each looked at when it is drawn.

        Raises:
            VariantError: a batch holds examples of the evaluation data, or has no targets where they are needed.
        """
        for number, batch in enumerate(batches):
            if needs_targets and batch.targets is None:
                self._refuse(
                    f"batch {number} of the calibration data has no targets, and the recipe trains with them: give "
                    "(inputs, targets)"
                )
            hashes = hashes_of_inputs(batch)
            self._refuse_evaluated(hashes, batch, number)
            self._batches = max(self._batches, number + 1)
            self._looked_at += len(hashes)
            self._hashes.update(hashes)
            self._constant += _constant(batch)
            self._add_classes(batch.targets)
            for name, rows in _numbers(batch):
                self._seen[name] = _wider(self._seen.get(name), rows)
            yield batch

    def evaluated(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of a pass over the evaluation data, compared with what was seen, where there was anything."""
        for batch in batches:
            for name, rows in _numbers(batch) if self._seen else ():
                if name in self._seen:
                    self._ranges[name] = _compared(name, self._seen[name], self._ranges.get(name), rows)
            yield batch

    def calibration(self) -> Calibration | None:
        """None where nothing was drawn."""
        if not self._batches:
            return None
        return Calibration(
            batches=self._batches,
            examples=len(self._hashes),
            looked_at=self._looked_at,
            constant=self._constant,
            classes=tuple(sorted(self._classes)) if self._classes else None,
            ranges=tuple(self._ranges.values()),
        )

    def _refuse_evaluated(self, hashes: list[bytes], batch: Batch, number: int) -> None:
        if self._evaluation is None:
            return
        if self._positions is None:
            self._positions = Positions(self._evaluation.hashes_path)
        found = [(row, index) for row, index in enumerate(self._positions.find(hashes)) if index is not None]
        if not found:
            return
        row, index = found[0]
        self._refuse(
            f"{len(found)} of the {len(hashes)} examples in batch {number} of the calibration data are in the "
            f"evaluation data, too: the first is example {batch.first + row} there and example {index} of `data`. The "
            "recipe would be scored on what it was fitted to; give `calibration` data that is held out"
        )

    def _refuse(self, message: str) -> None:
        self.refusal = VariantError(message)
        raise self.refusal

    def _add_classes(self, targets: Targets | None) -> None:
        if self._classes is None:
            return
        if not isinstance(targets, torch.Tensor) or targets.ndim != 1 or not _is_integer(targets):
            self._classes = None
            return
        self._classes.update(targets.tolist())
        if len(self._classes) > MOST_CLASSES:
            self._classes = None


def _is_integer(targets: torch.Tensor) -> bool:
    return not targets.is_floating_point() and not targets.is_complex()


def _constant(batch: Batch) -> int:
    """How many examples hold one single value, again and again: a black image, silence, padding."""
    count = batch.examples
    rows = [tensor.detach().reshape(count, -1) for _, tensor in _columns(batch)]
    rows = [row for row in rows if row.shape[1] > 1]  # a single number is no sign
    if not rows:
        return 0
    same = torch.stack([(row == row[:, :1]).all(dim=1) for row in rows]).all(dim=0)
    return int(same.sum())


def _columns(batch: Batch) -> list[tuple[str, torch.Tensor]]:
    """The tensors with a row for each example; none of a batch that is not cut."""
    found = columns(batch.inputs) if batch.is_cut else ()
    return [(name, part) for name, part in found if isinstance(part, torch.Tensor)]


def _numbers(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, numbers of each example in a row) of the inputs of floating point, where all of them are finite."""
    for name, tensor in _columns(batch):
        if tensor.layout is torch.strided and tensor.is_floating_point() and tensor.numel():
            rows = tensor.detach().reshape(batch.examples, -1)
            if rows.isfinite().all():
                yield name or "0", rows


def _wider(before: tuple[float, float] | None, rows: torch.Tensor) -> tuple[float, float]:
    low, high = (float(edge) for edge in rows.aminmax())
    return (low, high) if before is None else (min(low, before[0]), max(high, before[1]))


def _compared(name: str, seen: tuple[float, float], before: Ranges | None, rows: torch.Tensor) -> Ranges:
    margin = (seen[1] - seen[0]) / 2
    is_outside = (rows.amin(1) < seen[0] - margin) | (rows.amax(1) > seen[1] + margin)
    outside, count = (0, 0) if before is None else (before.outside, before.examples)
    evaluated = _wider(None if before is None else before.evaluated, rows)
    return Ranges(name, seen, evaluated, outside + int(is_outside.sum()), count + len(rows))
