"""How the answers of two variants differ on the same examples: counts, single examples, slices, and what they allow.

Everything is one to one: the examples are the same, in the same order, which is checked by their fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Inference = Literal["set", "population"]
"""What a limit on accuracy is about: these very examples, or all those that they were drawn from."""

MOST_CHANGED = 10_000
"""Changed examples that a record lists, the first ones of the data."""
MOST_SLICES = 10_000
"""More classes than that are not told apart."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Examples that the two variants answer differently, in columns, in the order of the data."""

    index: tuple[int, ...]
    """From 0, in the evaluation data."""
    target: tuple[int, ...] | None
    """None where the data has no labels."""
    before: tuple[int, ...]
    """What the original predicts."""
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Predictions of the original and the variant on the same examples, compared one by one."""

    examples: int
    right_to_wrong: int
    wrong_to_right: int
    flips: int
    """Examples whose prediction changed, wrong to other wrong included."""
    changed: Changed | None = None
    """Those, and the examples that are right in one of the two only: all of them, up to `MOST_CHANGED`."""


@dataclass(frozen=True, slots=True)
class Slices:
    """The comparison by parts of the data, in columns: one entry per slice."""

    names: tuple[str, ...]
    of_classes: bool
    """Whether they are the classes of the targets; otherwise the project named them."""
    examples: tuple[int, ...]
    drops: tuple[float | None, ...]
    """How much worse the variant's score on the slice is, in the metric's unit; None where it has none there."""
    right_to_wrong: tuple[int, ...] | None = None
    """None for a metric that is not right-or-wrong per example."""
    wrong_to_right: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of the drop in the population that the examples were drawn from, in the metric's unit.

    Each of the two holds alone with 95% (one-sided). Right-or-wrong metrics need none: theirs follow from `Agreement`.
    A paired bootstrap of the run's seed gives them.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a variant that answers differently each time gave in a second pass over the same examples."""

    examples: int
    score: float | None
    flips: int | None
    """Predictions of the second pass that differ from the first; None where the metric knows no predictions."""
