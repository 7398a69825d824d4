"""Variants that answer differently each time: what several passes over the same examples allow a figure to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from pytest_modelopt.limits.kind import Number
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.measurement import Measurement
from pytest_modelopt.results.metric import is_share
from pytest_modelopt.results.verdicts import Parameter

_ROUNDING = 1e-6
"""What floats may make of a whole number of examples."""


@dataclass(frozen=True)
class Passes:
    """A figure of the first pass, and the lowest and highest that other passes allow; all one where they repeat."""

    low: Number
    figure: Number
    high: Number

    @property
    def differ(self) -> bool:
        return self.low < self.high

    @property
    def is_known(self) -> bool:
        """False where another pass has no such figure."""
        return not math.isinf(self.low)

    def parameters(self) -> dict[str, Parameter]:
        """Of a verdict's reason: nothing where all passes agree, None for ends that nobody knows."""
        if not self.differ:
            return {}
        low, high = (float(end) if self.is_known else None for end in (self.low, self.high))
        return {"passes_low": low, "passes_high": high}


def repeats_itself(case: MeasuredCase) -> bool:
    """Whether both sides gave the same answers in another pass over the same examples, as far as that was tried."""
    return all(side is None or side.repeat is None for side in (case.reference, case.variant))


def of_flips(case: MeasuredCase, figure: Number) -> Passes:
    """What a share of flips may be in other passes."""
    if repeats_itself(case):
        return Passes(figure, figure, figure)
    assert case.agreement is not None
    # Of two passes that differ in r answers, one is at most r further from a third: flips are a distance.
    own = Fraction(own_flips(case), case.agreement.examples)
    return Passes(max(Fraction(0), figure - own), figure, min(Fraction(1), figure + own))


def of_token_flips(case: MeasuredCase, figure: Number) -> Passes:
    """The same, of positions in sequences: nobody counts those of another pass."""
    if repeats_itself(case):
        return Passes(figure, figure, figure)
    return Passes(-math.inf, figure, math.inf)


def of_scores(case: MeasuredCase, figure: Number, *, is_drop: bool) -> Passes:
    """What a score, or a drop, may be in other passes."""
    if repeats_itself(case):
        return Passes(figure, figure, figure)
    found = _scores(case, case.variant)
    if is_drop:
        sign = 1 if case.higher_is_better else -1
        found = [sign * (before - after) for before in _scores(case, case.reference) for after in found]
    if any(math.isnan(each) for each in found):
        return Passes(-math.inf, figure, math.inf)
    return Passes(min(found), figure, max(found))


def own_flips(case: MeasuredCase) -> int:
    """Predictions that differ between passes of the two sides themselves; all of them where nobody counted."""
    assert case.agreement is not None
    repeats = [side.repeat for side in (case.reference, case.variant) if side is not None and side.repeat is not None]
    everything = case.agreement.examples
    return min(everything, sum(everything if repeat.flips is None else repeat.flips for repeat in repeats))


def exact_score(case: MeasuredCase, score: float) -> Number:
    """Counted exactly for a metric that is right-or-wrong, also where single predictions were not compared."""
    examples = case.agreement.examples if case.agreement is not None else _counted(case)
    right = round(score * examples)
    if not examples or (case.agreement is None and abs(score * examples - right) > _ROUNDING):
        return score
    return Fraction(right, examples)


def _counted(case: MeasuredCase) -> int:
    """The examples of which both scores are a share; 0 where they are none, or of different examples."""
    counts = {side.examples for side in (case.reference, case.variant) if side is not None}
    return counts.pop() if is_share(case.metric) and len(counts) == 1 else 0


def _scores(case: MeasuredCase, side: Measurement | None) -> list[Number]:
    """Of each pass; NaN where a pass has no score."""
    if side is None:
        return [math.nan]
    told = [side.score] if side.repeat is None else [side.score, side.repeat.score]
    return [math.nan if score is None else exact_score(case, score) for score in told]
