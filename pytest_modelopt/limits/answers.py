"""What limits about answers have in common: on these very examples, or on the population that they were drawn from.

Under `inference: population` a limit is kept only where the one-sided 95% bound keeps it, and broken only where the
opposite bound breaks it; a bound that lies exactly on the limit keeps it. Between the two it is inconclusive. Where a
variant does not repeat itself, the same holds for its passes: what some keep and others break is inconclusive.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from pytest_modelopt.limits.kind import LimitKind, Number
from pytest_modelopt.limits.repeated_passes import Passes, over_passes, told_repeats
from pytest_modelopt.limits.verdict_text import base_name, told_needed, told_scores, undecided
from pytest_modelopt.results.metric import MetricSpec, in_unit_interval
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.needed import examples_for_share
from pytest_modelopt.statistics.proportions import share_bounds

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

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float | None:
        """Of a drop or flips, and at least one example. What is better than its original has the gain as its room."""
        start = measured if not end and measured is not None and measured < -_NOTHING else end
        room = max(headroom * max(start, 0.0), self.one_example(case))
        if room <= _NOTHING and abs(start) <= _NOTHING:
            return None
        most = 1.0 if self.unit == "percentage" or in_unit_interval(case.metric) else start + room
        return max(0.0, min(most, start + room))

    def one_example(self, case: Case) -> float:
        """What one example more comes to; 0 for a metric that does not count them."""
        if case.agreement is None or not in_unit_interval(case.metric):
            return 0.0
        return float(Fraction(1, case.agreement.examples))


@dataclass(frozen=True)
class OverallKind(AnswerKind):
    """A limit on a figure of all answers."""

    is_drop: ClassVar[bool] = False

    @abstractmethod
    def figure_of(self, case: Case) -> Number | None:
        """On these examples; None where it was not measured."""

    @abstractmethod
    def passes_of(self, case: Case, figure: Number) -> Passes:
        """What the figure may be in other passes over the same examples."""

    @abstractmethod
    def bounds_of(self, case: Case, limit: Limit, figure: float) -> Bounds | str:
        """Of the population, or why there are none."""

    def judge(self, case: Case, limit: Limit, timed_limits: int) -> Verdict:
        figure = self.figure_of(case)
        if figure is None:
            return self.not_measured(case, limit)
        useless = self.why_useless(case)
        if useless and case.base is None:
            return self.not_measured(case, limit, useless)
        passes = self.passes_of(case, figure)
        if case.inference == "set":
            return self._on_the_set(case, limit, passes)
        if self.is_drop and case.interval_lacks_examples and case.variant is not None:
            told = self.told(case, limit, float(figure), kept=False)
            text = f"{told} on {case.variant.examples:,} examples; {case.no_interval}"
            return self.verdict(case, limit, "inconclusive", figure, text)
        bounds = self.bounds_of(case, limit, float(figure))
        if isinstance(bounds, str):
            why = f"{bounds}; `inference: set` judges these examples themselves"
            if case.base is not None:
                return undecided(case, limit, f"{self.told(case, limit, float(figure), kept=False)}, but {why}", figure)
            return self.not_measured(case, limit, why)
        return self._in_the_population(case, limit, passes, bounds)

    def told(self, case: Case, limit: Limit, figure: float, *, kept: bool) -> str:
        """'0.7 pp measured', or against a base '0.7 pp worse than at 1a2b3c4d5e6f (96.2%, was 96.9%)'."""
        if case.base is None:
            return f"{self.shown(case, limit, figure, kept)} measured"
        scores = told_scores(case)
        if figure == 0:
            return f"neither better nor worse than at {base_name(case)}{scores}"
        amount = self.shown(case, limit, abs(figure), kept=kept or figure < 0)
        return f"{amount} {'worse' if figure > 0 else 'better'} than at {base_name(case)}{scores}"

    def _on_the_set(self, case: Case, limit: Limit, passes: Passes) -> Verdict:
        decision = self.decide(case, limit, passes.low, passes.high)
        figure = float(passes.figure)
        told = self.told(case, limit, figure, kept=decision == "pass")
        text = f"{told}{over_passes(self, case, limit, passes)}"
        if decision == "fail":
            text += self.by_how_much(case, limit, figure)
        elif decision == "inconclusive" and passes.is_known:
            text += ", and the limit lies between"
        if passes.differ:
            text += f"; {told_repeats(case)}"
        return self.verdict(case, limit, decision, figure, text)

    def _in_the_population(self, case: Case, limit: Limit, passes: Passes, bounds: Bounds) -> Verdict:
        decision = self.decide(case, limit, bounds.low, bounds.high)
        told = self.told(case, limit, float(passes.figure), kept=decision != "fail")
        text = f"{told} on {bounds.examples:,} examples"
        low, high = (self.shown(case, limit, end, kept=False) for end in (bounds.low, bounds.high))
        if decision == "inconclusive":
            text += (
                f", {low} to {high} in the population (95% on each side), and the limit lies between: "
                f"{told_needed(bounds.needed)}"
            )
        else:
            is_upper = self.bounds_from_above(case) == (decision == "pass")
            text += f", {f'at most {high}' if is_upper else f'at least {low}'} in the population (95%)"
        if passes.differ:
            text += f"{over_passes(self, case, limit, passes)}; {told_repeats(case)}"
            if self.decide(case, limit, passes.low, passes.high) != decision:
                decision = "inconclusive"
        return self.verdict(case, limit, decision, passes.figure, text)


def share_bounds_of(case: Case, limit: Limit, figure: float) -> Bounds | str:
    """Of a share of the examples."""
    if case.agreement is None:
        return f"{case.metric} is not right-or-wrong per example, and of such a metric only the drop gets an interval"
    examples = case.agreement.examples
    count = round(figure * examples)
    if not 0 <= count <= examples:
        return f"a score of {figure:g} is no share of {examples} examples"
    return Bounds(*share_bounds(count, examples), examples, examples_for_share(count, examples, limit.value))


def predicts(metric: MetricSpec) -> bool:
    """Whether the metric is right or wrong on each example."""
    return metric.top_k is not None or metric.name == "agreement"
