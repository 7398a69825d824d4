"""The verdict on `max_slice_drop`: the worst drop over classes, or over the slices that the project names.

On the set a slice's drop is exact, however few examples it has. Where a single example of a slice is already more than
the limit, what it lost says little beyond these examples, and that it lost nothing says nothing. Both are said, and
neither changes the verdict.

In the population every slice must keep the limit, so each needs its own 95% bound on the good side (an
intersection-union test, which needs no correction); for a broken limit the 5% are shared among the slices, since one of
many lies far off by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

from pytest_modelopt.limits.accuracy import below_floor
from pytest_modelopt.limits.answers import AnswerKind, predicts
from pytest_modelopt.limits.baseline_sanity import why_worthless
from pytest_modelopt.limits.kind import Number, compared, ends
from pytest_modelopt.limits.repeated_passes import Passes, own_flips, repeats_itself
from pytest_modelopt.results.answers import Slices
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Limit, Parameter, Reason, Verdict
from pytest_modelopt.statistics.needed import examples_for_drop
from pytest_modelopt.statistics.proportions import drop_bounds, shared_z
from pytest_modelopt.statistics.timing import Decision

RISK = 0.05


@dataclass(frozen=True)
class SliceRow:
    """One slice. `lost` and `won` are None for a metric that is not right-or-wrong, `drop` where it has no score."""

    name: str
    examples: int
    lost: int | None
    won: int | None
    drop: Number | None


def slice_rows(slices: Slices) -> list[SliceRow]:
    """The slices in the order of the record."""
    unknown = (None,) * len(slices.names)
    columns = (slices.examples, slices.right_to_wrong or unknown, slices.wrong_to_right or unknown, slices.drops)
    return [
        SliceRow(
            name,
            examples,
            lost,
            won,
            drop if lost is None or won is None else Fraction(lost - won, examples),
        )
        for name, examples, lost, won, drop in zip(slices.names, *columns, strict=True)
    ]


def worst_first(rows: Sequence[SliceRow]) -> list[SliceRow]:
    """Those with a drop, the largest one first; of equal ones the slice with more examples."""
    return sorted((row for row in rows if row.drop is not None), key=lambda row: (-_drop(row), -row.examples))


def beyond(rows: Sequence[SliceRow], limit: Limit) -> list[SliceRow]:
    """Those whose drop breaks the limit, the worst one first."""
    return [row for row in worst_first(rows) if compared(_drop(row), limit) > 0]


def too_small(case: MeasuredCase, limit: Limit) -> list[SliceRow]:
    """Slices of which a single example is more than the limit. No slice is, where the limit allows none at all."""
    if case.slices is None or not limit.value:
        return []
    counted = [row for row in slice_rows(case.slices) if row.lost is not None]
    return [row for row in counted if compared(Fraction(1, row.examples), limit) > 0]


@dataclass(frozen=True)
class MaxSliceDrop(AnswerKind):
    def judge(self, case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
        if case.slices is None or all(drop is None for drop in case.slices.drops):
            return self.not_measured(limit, "no-slices")
        useless = self.why_useless(case)
        if useless is not None:
            return self.not_measured(limit, useless.code, **useless.parameters)
        rows = slice_rows(case.slices)
        if case.inference == "population" and case.slices.right_to_wrong is None:
            return self.not_measured(limit, "slices-not-right-or-wrong")
        worst, passes = _drop(worst_first(rows)[0]), _passes(case, rows)
        if case.inference == "population":
            code, (decision, parameters) = "slices-in-the-population", _in_the_population(limit, rows)
        else:
            code, decision = "slices-on-the-set", self.decide(case, limit, worst, worst)
            parameters = {}
        parameters |= {"by_slices": decision, **passes.parameters()}
        if passes.differ and self.decide(case, limit, passes.low, passes.high) != decision:
            decision = "inconclusive"
        if decision == "pass" and any(row.drop is None for row in rows):
            # Green would claim it of all slices, and red would never leave a slice that cannot be scored.
            decision = "inconclusive"
        return Verdict(limit, decision, float(worst), Reason(code, parameters), *ends(passes.low, passes.high))

    def passes_among(self, case: MeasuredCase, limit: Limit, finalists: int) -> bool:
        """In the population by the bounds of all slices at the share of their error that one finalist has."""
        if case.inference == "set" or case.slices is None or case.slices.right_to_wrong is None:
            return True  # the verdict knows
        counted = [(row.lost or 0, row.won or 0, row.examples) for row in slice_rows(case.slices)]
        return all(drop_bounds(*row, shared_z(finalists))[1] <= limit.value for row in counted)

    def why_useless(self, case: MeasuredCase) -> Reason | None:
        return why_worthless(case) or below_floor(case)

    def one_example(self, case: MeasuredCase) -> float:
        """Of the slice with the worst drop."""
        if case.slices is None or not super().one_example(case):
            return super().one_example(case)
        worst = worst_first(slice_rows(case.slices))
        return float(Fraction(1, worst[0].examples)) if worst else 0.0

    def note(self, case: MeasuredCase, limit: Limit) -> Reason | None:
        """Of slices of which one example is more than the limit. Bounds know that."""
        is_said = case.inference == "population" or not too_small(case, limit)
        return None if is_said else Reason("small-slices")

    def never_measured(self, metric: MetricSpec, slices: str | None, inference: str) -> str:
        if predicts(metric):
            return ""
        if slices is None:
            return f"`metric: {metric.name}` knows no classes; name slices with `slices: package.module:function`"
        if inference == "population":
            return (
                f"`metric: {metric.name}` is not right-or-wrong per example, and single slices get no interval; "
                "`inference: set` judges these examples themselves"
            )
        return ""


def _in_the_population(limit: Limit, rows: Sequence[SliceRow]) -> tuple[Decision, dict[str, Parameter]]:
    """The decision by the bounds of all slices, and the slice that it rests on, with its bound."""
    shared = NormalDist().inv_cdf(1 - RISK / len(rows))
    highest: list[tuple[float, SliceRow]] = []
    broken: list[tuple[float, SliceRow]] = []
    for row in rows:
        assert row.lost is not None
        assert row.won is not None
        highest.append((drop_bounds(row.lost, row.won, row.examples)[1], row))
        low = drop_bounds(row.lost, row.won, row.examples, shared)[0]
        if low > limit.value:
            broken.append((low, row))
    bound, row = max(broken or highest, key=lambda each: each[0])
    parameters: dict[str, Parameter] = {"slice": row.name, "bound": bound}
    if broken:
        return "fail", parameters
    if bound <= limit.value:
        return "pass", parameters
    assert row.lost is not None
    assert row.won is not None
    # Its own bound passes where it keeps the limit; where it does not, the shared bound has to break it.
    z = shared if compared(_drop(row), limit) > 0 else NormalDist().inv_cdf(1 - RISK)
    parameters["open"] = sum(each > limit.value for each, _ in highest)
    parameters["needed"] = examples_for_drop(row.lost, row.won, row.examples, limit.value, z)
    return "inconclusive", parameters


def _passes(case: MeasuredCase, rows: Sequence[SliceRow]) -> Passes:
    """What the worst drop may be in other passes, as far as the own flips of both sides bound it."""
    ranked = worst_first(rows)
    figure = _drop(ranked[0])
    if repeats_itself(case):
        return Passes(figure, figure, figure)
    if case.agreement is None or case.metric not in ("accuracy", "agreement"):
        return Passes(-math.inf, figure, math.inf)  # an answer may turn wrong while the first prediction stays
    own = own_flips(case)
    moves = [(_drop(row), Fraction(min(own, row.examples), row.examples)) for row in ranked]
    low, high = max(drop - move for drop, move in moves), max(drop + move for drop, move in moves)
    return Passes(max(Fraction(-1), low), figure, min(Fraction(1), high))


def _drop(row: SliceRow) -> Number:
    assert row.drop is not None
    return row.drop


LIMITS = (
    MaxSliceDrop(
        "max_slice_drop",
        "max",
        "points",
        "slices",
        "The most by which the score may be worse on any one class, or on any slice that the project names.",
    ),
)
