"""The interval of a drop by a paired bootstrap: the same examples drawn again and again, for both variants at once."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import torch

from pytest_modelopt.measuring.protocol import TooFewExamples
from pytest_modelopt.results.answers import Interval

RESAMPLES = 2000
FEWEST_CHANGED = 5
"""Examples that must be scored differently. Of k such examples, resamples of many examples hold none at all with
probability exp(-k): with fewer than five, the interval would tell of certainty that nobody has."""
MOST_EXAMPLES = 200_000
"""More would take minutes to resample."""
_RISK = 0.05
_MOST_COUNTS = 2_000_000
"""Numbers in memory at once: how often each example is drawn, for some of the resamples."""

FromSums = Callable[[torch.Tensor, int], float]


def paired_bootstrap(
    before: array[float], after: array[float], width: int, from_sums: FromSums, *, higher_is_better: bool, seed: int
) -> Interval | str:
    """Bounds of the drop, each at 95% one-sided; or why there are none.

    `before` and `after` hold `width` numbers for each example, in the same order; `from_sums` makes a score of their
    sums over any examples.
    """
    if not width or not before or len(before) != len(after):
        return "the two scores are not made of the same sums over the examples, so these cannot be resampled"
    pair = [torch.frombuffer(side, dtype=torch.float64).reshape(-1, width) for side in (before, after)]
    examples = len(pair[0])
    if examples > MOST_EXAMPLES:
        return f"{examples:,} examples are more than can be resampled in reasonable time, {MOST_EXAMPLES:,}"
    changed = int((pair[0] != pair[1]).any(dim=1).sum())
    if changed < FEWEST_CHANGED:
        return TooFewExamples(
            f"{changed} of {examples:,} examples are scored differently, and {FEWEST_CHANGED} are needed for an "
            "interval: so few say nothing about other examples"
        )
    was, now = _resampled(pair, from_sums, seed).unbind(dim=1)
    drops = was - now if higher_is_better else now - was
    if not bool(torch.isfinite(drops).all()):
        return TooFewExamples("the metric has no score on some of the resamples")
    low, high = torch.quantile(drops, torch.tensor([_RISK, 1 - _RISK], dtype=torch.float64)).tolist()
    return Interval(low, high)


def _resampled(pair: list[torch.Tensor], from_sums: FromSums, seed: int) -> torch.Tensor:
    """The two scores on each resample, which both share."""
    generator = torch.Generator().manual_seed(seed)
    examples = len(pair[0])
    at_once = max(1, _MOST_COUNTS // examples)
    scores: list[list[float]] = []
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn = torch.randint(examples, (rows, examples), generator=generator)
        counts = torch.zeros(rows, examples, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        sums = [counts @ side for side in pair]
        for before, after in zip(*sums, strict=True):
            scores.append([_score(from_sums, before, examples), _score(from_sums, after, examples)])
    return torch.tensor(scores, dtype=torch.float64)


def _score(from_sums: FromSums, sums: torch.Tensor, examples: int) -> float:
    value = from_sums(sums, examples)
    return value if math.isfinite(value) else math.nan
