"""Limits on the score: how far it may drop, against the original or the base, and how low it may be."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from pytest_modelopt.limits.answers import Bounds, OverallKind, share_bounds_of
from pytest_modelopt.limits.baseline_sanity import why_worthless
from pytest_modelopt.limits.kind import Number, undecided
from pytest_modelopt.limits.repeated_passes import Passes, exact_score, of_scores
from pytest_modelopt.results.case import ORIGINAL, MeasuredCase
from pytest_modelopt.results.metric import UNLABELLED, in_unit_interval
from pytest_modelopt.results.verdicts import Limit, Reason, Verdict
from pytest_modelopt.statistics.needed import examples_for_drop, examples_for_interval
from pytest_modelopt.statistics.proportions import Z_ONE_SIDED_95, drop_bounds


@dataclass(frozen=True)
class MaxAccuracyDrop(OverallKind):
    is_drop: ClassVar[bool] = True

    def figure_of(self, case: MeasuredCase) -> Number | None:
        """Counted exactly where predictions were compared one by one, else the difference of the two scores."""
        if case.agreement is not None:
            changed = case.agreement
            return Fraction(changed.right_to_wrong - changed.wrong_to_right, changed.examples)
        if case.drop is None or case.reference is None or case.variant is None:
            return None
        assert case.reference.score is not None
        assert case.variant.score is not None
        before, after = exact_score(case, case.reference.score), exact_score(case, case.variant.score)
        return before - after if case.higher_is_better else after - before

    def passes_of(self, case: MeasuredCase, figure: Number) -> Passes:
        return of_scores(case, figure, is_drop=True)

    def bounds_of(self, case: MeasuredCase, limit: Limit, figure: float, z: float = Z_ONE_SIDED_95) -> Bounds | Reason:
        changed = case.agreement
        if changed is not None:
            examples, lost, won = changed.examples, changed.right_to_wrong, changed.wrong_to_right
            needed = examples_for_drop(lost, won, examples, limit.value)
            return Bounds(*drop_bounds(lost, won, examples, z), examples, needed)
        if case.interval is None or case.variant is None:
            return Reason("no-interval")
        # An interval that does not hold what was measured would decide against the very examples.
        low, high = min(case.interval.low, figure), max(case.interval.high, figure)
        if z != Z_ONE_SIDED_95:  # the resampled drops are not kept, so their tails count as those of a normal
            wider = z / Z_ONE_SIDED_95
            low, high = figure - wider * (figure - low), figure + wider * (high - figure)
        examples = case.variant.examples
        return Bounds(low, high, examples, examples_for_interval(figure, low, high, examples, limit.value))

    def why_useless(self, case: MeasuredCase) -> Reason | None:
        return why_worthless(case) or below_floor(case)


@dataclass(frozen=True)
class MaxAccuracyLoss(MaxAccuracyDrop):
    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        """As a drop is judged. A base that is no better than guessing shows no loss, and head need not mend that.

        Where no answer is another one, nothing was lost, whatever the answers are worth.
        """
        judged = super().judge(case, limit, timed_limits)
        same = case.agreement
        if same is not None and not (same.flips or same.right_to_wrong or same.wrong_to_right):
            return judged
        if case.recipe == ORIGINAL and case.metric in UNLABELLED and not _is_same_model(case):
            return undecided(limit, "unlabelled-original")
        useless = self.why_useless(case)
        if judged.outcome != "pass" or useless is None or judged.measured is None or judged.measured < 0:
            return judged
        return undecided(limit, "worthless-base", judged.measured, useless=useless.code, **useless.parameters)


@dataclass(frozen=True)
class MinAccuracy(OverallKind):
    is_absolute: ClassVar[bool] = True

    def bounds_from_above(self, case: MeasuredCase) -> bool:
        """The floor of a score is a ceiling where the metric is better when it is lower."""
        return not case.higher_is_better

    def figure_of(self, case: MeasuredCase) -> Number | None:
        return None if case.variant is None or case.variant.score is None else exact_score(case, case.variant.score)

    def passes_of(self, case: MeasuredCase, figure: Number) -> Passes:
        return of_scores(case, figure, is_drop=False)

    def bounds_of(self, case: MeasuredCase, limit: Limit, figure: float, z: float = Z_ONE_SIDED_95) -> Bounds | Reason:
        return share_bounds_of(case, limit, figure, z)

    def with_room(self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        """Of the errors behind a score from 0 to 1, and at least one example."""
        is_share = in_unit_interval(case.metric)
        room = headroom * ((1 - end) if is_share else abs(end))
        if self.bounds_from_above(case):
            return end + room
        room = max(room, self.one_example(case))
        return max(0.0, end - room) if is_share else end - room


def below_floor(case: MeasuredCase) -> Reason | None:
    """Where both are below `min_accuracy`. A variant above it needs no better original to be good enough."""
    floor = next((limit for limit in case.limits if limit.name == MIN_ACCURACY.name), None)
    sides = [side.score for side in (case.reference, case.variant) if side is not None]
    if floor is None or len(sides) < 2 or any(score is None or not _falls_short(case, score, floor) for score in sides):
        return None
    return Reason("original-below-floor", {"floor": floor.text})


def _falls_short(case: MeasuredCase, score: float, floor: Limit) -> bool:
    return score < floor.value if case.higher_is_better else score > floor.value


def _is_same_model(case: MeasuredCase) -> bool:
    """Whether it is the same to the bit at both, as far as that was seen."""
    seen = [side.observations for side in (case.reference, case.variant) if side is not None]
    digests = {each.digest if each is not None else None for each in seen}
    return len(digests) == 1 and None not in digests


MIN_ACCURACY = MinAccuracy(
    "min_accuracy",
    "min",
    "score",
    "score",
    "The score that the variant must reach on its own, whatever the original's is.",
)
LIMITS = (
    MaxAccuracyDrop(
        "max_accuracy_drop",
        "max",
        "points",
        "score",
        "The most by which the variant's score may be worse than the original's on the same examples.",
    ),
    MIN_ACCURACY,
)
AGAINST_BASE = (
    MaxAccuracyLoss(
        "max_accuracy_loss",
        "max",
        "points",
        "score",
        "The most by which the score may be worse than at the base on the same examples.",
        "base",
    ),
)
