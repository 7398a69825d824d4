"""The limit on predictions that differ from the original's."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pytest_modelopt.limits.answers import Bounds, OverallKind, predicts, share_bounds_of
from pytest_modelopt.limits.baseline_sanity import constant_answers
from pytest_modelopt.limits.kind import Number
from pytest_modelopt.limits.repeated_passes import Passes, of_flips, of_token_flips
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Limit, Reason
from pytest_modelopt.statistics.proportions import Z_ONE_SIDED_95


@dataclass(frozen=True)
class MaxFlips(OverallKind):
    def figure_of(self, case: MeasuredCase) -> Number | None:
        if case.tokens is not None:
            return Fraction(case.tokens.flips, case.tokens.sequences * case.tokens.positions)
        return Fraction(case.agreement.flips, case.agreement.examples) if case.agreement else None

    def passes_of(self, case: MeasuredCase, figure: Number) -> Passes:
        return of_token_flips(case, figure) if case.tokens is not None else of_flips(case, figure)

    def bounds_of(self, case: MeasuredCase, limit: Limit, figure: float, z: float = Z_ONE_SIDED_95) -> Bounds | Reason:
        return share_bounds_of(case, limit, figure, z)

    def why_useless(self, case: MeasuredCase) -> Reason | None:
        return constant_answers(case)

    def never_measured(self, metric: MetricSpec, slices: str | None, inference: str) -> str:
        if predicts(metric):
            return ""
        return (
            f"`metric: {metric.name}` is not right-or-wrong per example; remove the limit, or take `accuracy`, `top-5` "
            "or `agreement`"
        )


LIMITS = (
    MaxFlips(
        "max_flips",
        "max",
        "percentage",
        "predictions",
        "The largest share of the examples whose prediction may differ from the original's; of a model that generates, "
        "of the positions whose most probable next token does.",
    ),
)
