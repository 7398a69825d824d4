"""Scores of the same answers beside the wrong targets: what a score owes to which answer belongs to which example."""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUNDING = 1e-6
"""Relative: sums in another order."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """What the metric gives for the original's answers, rightly and wrongly paired with the targets."""

    examples: int
    """The first ones of the data, on which all of these are."""
    score: float
    """Each answer beside its own target."""
    shifted: float
    """Each answer beside the target of the next example."""
    shifted_further: float | None = None
    """Beside the target after that one; None where it was not needed, or the metric gave none."""
    one_answer: float | None = None
    """The first example's answer beside all targets; None likewise."""
    changed: int = 0
    """Examples whose target is not that of the next one."""
    neighbours: float = 0.0
    """How far the targets of neighbours lie apart, summed up."""
    others: float = 0.0
    """Likewise of examples that are no neighbours: in an order by target, neighbours are more alike than others."""


def is_better(score: float, than: float, *, higher_is_better: bool) -> bool:
    """Whether a score is better than another one, by more than rounding."""
    return not is_equal(score, than) and (score > than) == higher_is_better


def is_equal(score: float, other: float) -> bool:
    return math.isclose(score, other, rel_tol=_ROUNDING, abs_tol=1e-12)
