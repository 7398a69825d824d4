"""What every scorer is, and the batch that it is given."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch

from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.modules.nested_values import sizes
from pytest_modelopt.results.wrong_pairs import Pairing

Targets: TypeAlias = torch.Tensor | list[Any]
"""Of the examples of a batch: a tensor, or a list with one entry each (text, tensors of their own length, dicts)."""


@dataclass(frozen=True)
class Batch:
    """Some examples, in the order of the data."""

    inputs: Inputs
    targets: Targets | None
    """None where the data has no labels."""
    first: int = 0
    """Index of its first example in the data."""
    slices: tuple[int, ...] | None = None
    """The slice of each example, where the project names slices."""
    stated: int | None = None
    """Its examples, where `batch_of` says how many there are: then nothing of it is cut."""

    @property
    def examples(self) -> int:
        """As `batch_of` says, or as there are targets; without both the entries that all parts of the inputs have."""
        if self.stated is not None:
            return self.stated
        return max(sizes(self.inputs), default=0) if self.targets is None else len(self.targets)

    @property
    def is_cut(self) -> bool:
        """Whether examples can be taken out of it: not where one of its parts has other entries than there are
        examples, as ids beside offsets have."""
        return self.stated is None and sizes(self.inputs) == {self.examples}


@dataclass
class Score:
    """What a scorer comes to; the fields mean what they do in `Answers`."""

    value: float | None = None
    predictions: array[int] | None = None
    correct: bytes | None = None
    targets: array[int] | None = None
    classes: int | None = None
    slice_scores: tuple[float | None, ...] | None = None
    summands: array[float] | None = None
    width: int = 0
    notes: tuple[str, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)
    pairing: Pairing | None = None
    why_unpaired: str = ""


class Scorer(Protocol):
    """Made anew for each pass over the data."""

    def add(self, outputs: Any, batch: Batch) -> None:
        """The model's outputs for a batch, on the CPU; what is scored of them is refused where it holds NaN or +inf.

        Raises:
            VariantError: they do not fit the metric.
        """

    def score(self, slices: int) -> Score:
        """Of all batches; `slices` is the number of the project's slices, 0 where it names none."""
