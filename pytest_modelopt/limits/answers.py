"""What limits about answers have in common: on these very examples, or on the population that they were drawn from.

Under `inference: population` a limit is kept only where the one-sided 95% bound keeps it, and broken only where the
opposite bound breaks it; a bound that lies exactly on the limit keeps it. Between the two it is inconclusive. Where a
variant does not repeat itself, the same holds for its passes: what some keep and others break is inconclusive.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from pytest_modelopt.limits.kind import LimitKind, Number, ends, undecided
from pytest_modelopt.limits.repeated_passes import Passes
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval
from pytest_modelopt.results.verdicts import Limit, Parameter, Reason, Verdict
from pytest_modelopt.statistics.needed import examples_for_share
from pytest_modelopt.statistics.proportions import (
    Z_ONE_SIDED_95,
    clustered_examples,
    clustered_share_bounds,
    share_bounds,
    shared_z,
)

_NOTHING = 1e-9
"""A difference of two scores that is no larger is rounding."""


@dataclass(frozen=True)
class Bounds:
    """One-sided 95% bounds of a figure in the population, and about how many examples would decide its limit."""

    low: float
    high: float
    examples: int
    needed: int | None


@dataclass(frozen=True)
class AnswerKind(LimitKind):
    """A limit about answers."""

    is_about_answers: ClassVar[bool] = True

    def with_room(
        self, case: MeasuredCase, limit: Limit, end: float, measured: float | None, headroom: float
    ) -> float | None:
        """Of a drop or flips, and at least one example. What is better than its original has the gain as its room."""
        start = measured if not end and measured is not None and measured < -_NOTHING else end
        room = max(headroom * max(start, 0.0), self.one_example(case))
        if room <= _NOTHING and abs(start) <= _NOTHING:
            return None
        most = 1.0 if self.unit == "percentage" or in_unit_interval(case.metric) else start + room
        return max(0.0, min(most, start + room))

    def one_example(self, case: MeasuredCase) -> float:
        """What one example more comes to; 0 for a metric that does not count them."""
        if case.tokens is not None and self.unit == "percentage":
            return 1 / (case.tokens.sequences * case.tokens.positions)
        if case.agreement is None or not in_unit_interval(case.metric):
            return 0.0
        return float(Fraction(1, case.agreement.examples))


@dataclass(frozen=True)
class OverallKind(AnswerKind):
    """A limit on a figure of all answers."""

    is_drop: ClassVar[bool] = False

    @abstractmethod
    def figure_of(self, case: MeasuredCase) -> Number | None:
        """On these examples; None where it was not measured."""

    @abstractmethod
    def passes_of(self, case: MeasuredCase, figure: Number) -> Passes:
        """What the figure may be in other passes over the same examples."""

    @abstractmethod
    def bounds_of(self, case: MeasuredCase, limit: Limit, figure: float, z: float = Z_ONE_SIDED_95) -> Bounds | Reason:
        """Of the population, at the quantile `z`, or why there are none."""

    def passes_among(self, case: MeasuredCase, limit: Limit, finalists: int) -> bool:
        """In the population by the bound at the share of its error that one finalist has."""
        figure = self.figure_of(case)
        if case.inference == "set" or figure is None:
            return True  # the verdict knows
        bounds = self.bounds_of(case, limit, float(figure), shared_z(finalists))
        return isinstance(bounds, Bounds) and self.decide(case, limit, bounds.low, bounds.high) == "pass"

    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        figure = self.figure_of(case)
        if figure is None:
            return self.not_measured(limit)
        useless = self.why_useless(case)
        if useless is not None and case.base is None:
            return self.not_measured(limit, useless.code, **useless.parameters)
        passes = self.passes_of(case, figure)
        if case.inference == "set":
            return self._on_the_set(case, limit, passes)
        if self.is_drop and case.interval_lacks_examples and case.variant is not None:
            return undecided(limit, "interval-lacks-examples", figure)
        bounds = self.bounds_of(case, limit, float(figure))
        if isinstance(bounds, Bounds):
            return self._in_the_population(case, limit, passes, bounds)
        if case.base is not None:
            return undecided(limit, bounds.code, figure, **bounds.parameters)
        return self.not_measured(limit, bounds.code, **bounds.parameters)

    def _on_the_set(self, case: MeasuredCase, limit: Limit, passes: Passes) -> Verdict:
        decision = self.decide(case, limit, passes.low, passes.high)
        reason = Reason("on-the-set", passes.parameters())
        return Verdict(limit, decision, float(passes.figure), reason, *ends(passes.low, passes.high))

    def _in_the_population(self, case: MeasuredCase, limit: Limit, passes: Passes, bounds: Bounds) -> Verdict:
        decision = by_bounds = self.decide(case, limit, bounds.low, bounds.high)
        if passes.differ and self.decide(case, limit, passes.low, passes.high) != decision:
            decision = "inconclusive"
        parameters: dict[str, Parameter] = {
            "examples": bounds.examples,
            "needed": bounds.needed,
            "by_bounds": by_bounds,
            **passes.parameters(),
        }
        reason = Reason("in-the-population", parameters)
        return Verdict(limit, decision, float(passes.figure), reason, bounds.low, bounds.high)


def share_bounds_of(case: MeasuredCase, limit: Limit, figure: float, z: float = Z_ONE_SIDED_95) -> Bounds | Reason:
    """Of a share of the examples, or of the positions of sequences, which are no examples of their own."""
    if case.tokens is not None:
        found = case.tokens
        counts = (found.flips, found.squares, found.sequences, found.positions)
        independent = clustered_examples(*counts)
        needed = examples_for_share(found.share * independent, independent, limit.value)
        sequences = None if needed is None else math.ceil(needed * found.sequences / independent)
        return Bounds(*clustered_share_bounds(*counts, z), found.sequences, sequences)
    if case.agreement is None:
        return Reason("not-right-or-wrong")
    examples = case.agreement.examples
    count = round(figure * examples)
    if not 0 <= count <= examples:
        return Reason("no-share", {"score": figure, "examples": examples})
    return Bounds(*share_bounds(count, examples, z), examples, examples_for_share(count, examples, limit.value))


def predicts(metric: MetricSpec) -> bool:
    """Whether the metric is right or wrong on each example."""
    return metric.top_k is not None or metric.name == "agreement"
