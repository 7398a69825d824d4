"""By how much a figure follows the state of the machine: one number, from the pairs of a run and from earlier runs.

A neighbour on the host makes the original slower by `slowness` (a logarithm), and a figure by `slope * slowness`. The
slope belongs to the two programs: where both sides slow down alike, that of their ratio is 0; where only the weights of
the original lose their place in the caches it was up to 0.95. Several runs that met different states show it, and what
is left beside it repeats within 1% to 3% where raw figures spread by 15% (12 pairs of programs, 30 runs each).

Before there are such runs, the canary is the only sign of a state. Its slope was up to 1.4, and 4 to 9 times what a
regression over pairs shows, since the canary beside one pair is a noisy sign: pairs say how large it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import linear_regression, variance
from typing import NamedTuple

FEW_PAIRS = 20
"""With fewer the pairs say nothing of how they follow the canary."""
UNDERSTATED = 5.0
"""By which a regression over pairs understates the slope."""
_LEAST = 1e-9
"""Variance of a run: no two repeat better."""
_ROUNDS = 3
"""After which the slope and the deviations beside it change no more."""


class Deviations(NamedTuple):
    """Sums over earlier runs, each deviation from the mean of the runs of the same programs."""

    squares: float
    """Of the figure, beyond what each run explains."""
    with_slowness: float
    """Of the figure times that of the original's time, beyond what each run explains."""
    of_slowness: float
    """Squares of the original's time, beyond what each run explains."""
    alone: float = 0.0
    """Squares of the original's time that are expected in one and the same state."""
    alone_with: float = 0.0
    """What of these is in `with_slowness`, too, where the figure is made of that time: no slope of a state."""


class Slope(NamedTuple):
    """What is known of the slope."""

    value: float
    error: float
    squares: float
    """What is left of the deviations' squares beside it."""


STEEPEST = 1.0
"""No slope is taken for more: then the original alone is slower, and the variant as fast as ever."""


def likely(canaries_ns: Sequence[float], figures: Sequence[float], most: float) -> float:
    """The standard deviation of the canary's slope around 0 after one run: what a regression of the logarithms over its
    pairs shows, with its standard error, UNDERSTATED; `most` where the pairs cannot tell, or show more.

    `figures` are the logarithms of the pairs, in the order of `canaries_ns`.
    """
    if len(canaries_ns) != len(figures) or len(figures) < FEW_PAIRS:
        return most
    canaries = [math.log(canary) for canary in canaries_ns]
    spread = variance(canaries)
    if spread == 0:
        return most
    slope, intercept = linear_regression(canaries, figures)
    rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(canaries, figures, strict=True)) / len(figures)
    return min(most, UNDERSTATED * math.sqrt(slope**2 + rest / (spread * (len(figures) - 1))))


def slope_of(found: Deviations, prior: float, rest_beside: Callable[[float], float]) -> Slope:
    """The slope after earlier runs. Before them it is normal around 0 with the standard deviation `prior`.

    `rest_beside`: the variance of a run around the line, where that leaves so much of the deviations' squares.
    """
    slope = Slope(0.0, prior, found.squares)
    of_state = found.of_slowness - found.alone
    with_state = found.with_slowness - min(max(0.0, found.with_slowness), found.alone_with)
    if prior <= 0 or of_state <= 0:
        return slope
    for _ in range(_ROUNDS):
        rest = max(_LEAST, rest_beside(slope.squares))
        precision = of_state / rest + 1 / prior**2
        value = max(-STEEPEST, min(STEEPEST, with_state / rest / precision))
        explained = value * (2 * found.with_slowness - value * found.of_slowness)
        slope = Slope(value, 1 / math.sqrt(precision), max(0.0, found.squares - max(0.0, explained)))
    return slope
