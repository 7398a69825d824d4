"""Metrics that are a function of the project's own: of all outputs at once, or of each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.calls.structure import own
from pytest_modelopt.measuring.worker.metrics.entries import check, joined, pick, usable
from pytest_modelopt.measuring.worker.metrics.means import Means
from pytest_modelopt.measuring.worker.metrics.scored_outputs import count, number, raised_by, shape
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score
from pytest_modelopt.measuring.worker.metrics.wrong_pairings import attempted, pairing_of_all

Function = Callable[[Any, Any], Any]
"""(outputs, targets) -> the score, or one value for each example."""


class WholeSet:
    """A function that is called once, with all outputs and all targets.

    It holds all of these in memory, which grows with the number of examples. A function that gives one value for each
    example (`per_example: true`) and a class that is derived from torchmetrics' Metric do not.

    Outputs and targets have one entry for each example: see `entries`.
    """

    def __init__(
        self, function: Function, name: str, *, is_prepared: bool, higher_is_better: bool | None = None
    ) -> None:
        """`higher_is_better` is given where wrong pairs are scored, too."""
        self._function = function
        self._name = name
        self._whose = "`prepare`" if is_prepared else "the model"
        self._is_prepared = is_prepared
        self._higher_is_better = higher_is_better
        self._outputs: list[Any] = []
        self._targets: list[Any] = []
        self._slices: list[int] = []
        self._counts: list[int] = []
        self._examples = 0

    def add(self, outputs: Any, batch: Batch) -> None:
        entries = count(batch.targets) if self._is_prepared else None
        self._counts.append(batch.examples if entries is None else entries)
        outputs = usable(outputs, batch.first)
        check(outputs, self._counts[-1], self._whose)  # what does not fit is told now, not after the last batch
        self._outputs.append(own(outputs))
        self._targets.append(own(batch.targets))
        self._slices.extend(batch.slices or ())
        self._examples += batch.examples

    def score(self, slices: int) -> Score:
        outputs = joined(self._outputs, self._counts, self._whose)
        self._outputs.clear()
        targets = None
        if any(batch is not None for batch in self._targets):
            targets = joined(self._targets, self._counts, self._whose if self._is_prepared else "the data")
        found = Score(self._called(outputs, targets))
        self._pair(found, outputs, targets)
        found.why_not["interval"] = (
            f"{self._name} is a function of all examples at once; one with `per_example: true` has an interval"
        )
        if slices and sum(self._counts) != self._examples:
            found.why_not["slices"] = (
                f"{self._name} is a function of all examples at once, and of {self._examples:,} examples `prepare` "
                f"made {sum(self._counts):,} entries; one with `per_example: true` has slices"
            )
        elif slices:
            found.slice_scores = tuple(self._of_slice(index, outputs, targets) for index in range(slices))
        return found

    def _pair(self, found: Score, outputs: Any, targets: Any) -> None:
        if self._higher_is_better is None or targets is None or found.value is None:
            return
        with attempted(lambda why: setattr(found, "why_unpaired", why)):
            found.pairing = pairing_of_all(
                self._called,
                outputs,
                targets,
                sum(self._counts),
                found.value,
                higher_is_better=self._higher_is_better,
            )

    def _called(self, outputs: Any, targets: Any) -> float:
        whose = f"the metric `{self._name}`"
        given = f" (outputs {shape(outputs)}, targets {shape(targets)})"
        with raised_by(whose, given):
            value = self._function(outputs, targets)
        return number(
            value, whose, "return one, or one for each example of a batch and add `per_example: true` below `metric`"
        )

    def _of_slice(self, index: int, outputs: Any, targets: Any) -> float | None:
        positions = [position for position, of in enumerate(self._slices) if of == index]
        try:
            return self._called(pick(outputs, positions), pick(targets, positions))
        except VariantError:
            return None  # no score there: that is told as such


class PerExample:
    """A function that is called with each batch and gives one value for each of its examples; their mean counts."""

    def __init__(self, function: Function, name: str) -> None:
        self._function = function
        self._name = name
        self._means = Means()

    def add(self, outputs: Any, batch: Batch) -> None:
        whose = f"the metric `{self._name}`"
        given = f" (outputs {shape(outputs)}, targets {shape(batch.targets)})"
        with raised_by(whose, given):
            values = self._function(usable(outputs, batch.first), batch.targets)
        self._means.add(self._column(values, batch), batch)

    def score(self, slices: int) -> Score:
        return self._means.score(slices)

    def _column(self, values: Any, batch: Batch) -> torch.Tensor:
        """The values as numbers, one for each example of the batch, all of them finite."""
        expected = (
            f"the metric `{self._name}`, with `per_example`, must return one number for each of the {batch.examples} "
            "examples of a batch"
        )
        try:
            column = torch.as_tensor(values).double()
        except Exception as error:
            raise VariantError(f"{expected}; it returned a {type(values).__name__}") from error
        if tuple(column.shape) != (batch.examples,):
            raise VariantError(f"{expected}; it returned the shape {tuple(column.shape)}")
        wrong = (~torch.isfinite(column)).nonzero()
        if len(wrong):
            index = int(wrong[0])
            raise VariantError(
                f"the metric `{self._name}` returned {float(column[index])} for example {batch.first + index}, which "
                "is not a finite number"
            )
        return column
