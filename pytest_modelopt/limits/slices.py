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

from pytest_modelopt.limits.accuracy import is_below_floor
from pytest_modelopt.limits.answers import AnswerKind, predicts
from pytest_modelopt.limits.baseline_sanity import is_worthless
from pytest_modelopt.limits.kind import Number, compared
from pytest_modelopt.limits.repeated_passes import Passes, over_passes, own_flips, told_repeats
from pytest_modelopt.limits.spelling import plain
from pytest_modelopt.limits.verdict_text import in_points, told_needed
from pytest_modelopt.results.answers import Slices
from pytest_modelopt.results.figures import format_number, format_points
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.needed import examples_for_drop
from pytest_modelopt.statistics.proportions import drop_bounds
from pytest_modelopt.statistics.timing import Decision

RISK = 0.05
_NAMED = 3
_LONGEST_TITLE = 60
_NAME_SLICES = "name slices with `slices: package.module:function`"


@dataclass(frozen=True)
class SliceRow:
    """One slice. `lost` and `won` are None for a metric that is not right-or-wrong, `drop` where it has no score."""

    title: str
    """'class 3', 'slice night': on one line, never long."""
    examples: int
    lost: int | None
    won: int | None
    drop: Number | None

    def told(self, case: Case, limit: Limit | None = None) -> str:
        """'class 3 lost 4 of 45 examples and won 1 (6.67 pp)'."""
        assert self.drop is not None
        drop = format_drop(case, float(self.drop), limit)
        if self.lost is None:
            return f"{self.title} dropped by {drop} on {_examples(self.examples)}"
        return f"{self.title} lost {self.lost:,} of {_examples(self.examples)} and won {self.won:,} ({drop})"


def slice_rows(slices: Slices) -> list[SliceRow]:
    """The slices in the order of the record."""
    unknown = (None,) * len(slices.names)
    columns = (slices.examples, slices.right_to_wrong or unknown, slices.wrong_to_right or unknown, slices.drops)
    return [
        SliceRow(
            _title(slices, name),
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


def too_small(case: Case, limit: Limit) -> list[SliceRow]:
    """Slices of which a single example is more than the limit. No slice is, where the limit allows none at all."""
    if case.slices is None or not limit.value:
        return []
    counted = [row for row in slice_rows(case.slices) if row.lost is not None]
    return [row for row in counted if compared(Fraction(1, row.examples), limit) > 0]


def format_drop(case: Case, drop: float, limit: Limit | None = None) -> str:
    """In points for a metric from 0 to 1, and where the limit is stated in points."""
    return format_points(drop) if in_points(case, limit) else format_number(drop, digits=4)


def told_too_small(case: Case, limit: Limit) -> str:
    """'2 of 10 slices have so few examples ...', or '' where none is too small."""
    small = too_small(case, limit)
    if not small or case.slices is None:
        return ""
    names = [f"{row.title} ({row.examples:,})" for row in sorted(small, key=lambda row: row.examples)]
    have = "slices has" if len(small) == 1 else "slices have"
    return (
        f"{len(small):,} of {len(case.slices.names):,} {have} so few examples that a single one is more than "
        f"{limit.text}, so that nothing was lost there says nothing: {_listed(names)}"
    )


@dataclass(frozen=True)
class MaxSliceDrop(AnswerKind):
    def judge(self, case: Case, limit: Limit, timed_limits: int) -> Verdict:
        if case.slices is None or all(drop is None for drop in case.slices.drops):
            return self.not_measured(case, limit, _why_none(case))
        useless = self.why_useless(case)
        if useless:
            return self.not_measured(case, limit, useless)
        rows = slice_rows(case.slices)
        if case.inference == "population":
            if case.slices.right_to_wrong is None:
                why = (
                    f"{plain(case.metric or 'the metric')} is not right-or-wrong per example, and single slices get no "
                    "interval; `inference: set` judges these examples themselves"
                )
                return self.not_measured(case, limit, why)
            decision, text = self._slices_in_the_population(case, limit, rows)
        else:
            decision, text = self._slices_on_the_set(case, limit, rows)
        worst = worst_first(rows)[0]
        passes = _passes(case, rows)
        if passes.differ:
            if self.decide(case, limit, passes.low, passes.high) != decision:
                decision = "inconclusive"
            text += f"{over_passes(self, case, limit, passes)}; {told_repeats(case)}"
        unscored = [row.title for row in rows if row.drop is None]
        if unscored:
            # Green would claim it of all slices, and red would never leave a slice that cannot be scored.
            decision = "inconclusive" if decision == "pass" else decision
            text += (
                f"; {'a slice has' if len(unscored) == 1 else f'{len(unscored):,} slices have'} no score: "
                f"{_listed(unscored)}; give them examples on which the metric has a value, or one name with others"
            )
        return self.verdict(case, limit, decision, _drop(worst), text)

    def _slices_on_the_set(self, case: Case, limit: Limit, rows: Sequence[SliceRow]) -> tuple[Decision, str]:
        ranked = worst_first(rows)
        worst = ranked[0]
        beyond = [row for row in ranked if compared(_drop(row), limit) > 0]
        if not beyond:
            small = told_too_small(case, limit)
            return "pass", f"at worst {worst.told(case, limit)}{f'; {small}' if small else ''}"
        text = f"{worst.told(case, limit)}{self.by_how_much(case, limit, float(_drop(worst)))}"
        if worst in too_small(case, limit):
            enough = math.ceil(1 / Fraction(repr(limit.value)))
            text += (
                f"; with {_examples(worst.examples)} a single one is {format_points(1 / worst.examples)}, more than "
                f"the limit, so it says little beyond them: it takes {enough:,} examples of a slice before one is "
                "within it"
            )
        if len(beyond) > 1:
            others = [
                f"{row.title} ({format_drop(case, float(_drop(row)), limit)} of {row.examples:,})" for row in beyond[1:]
            ]
            text += f"; {len(others):,} more of {len(rows):,} slices beyond the limit: {_listed(others)}"
        return "fail", text

    def _slices_in_the_population(self, case: Case, limit: Limit, rows: Sequence[SliceRow]) -> tuple[Decision, str]:
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
        if broken:
            low, row = max(broken, key=lambda each: each[0])
            among = f", shared among {len(rows):,} slices" if len(rows) > 1 else ""
            bound = f"at least {self.shown(case, limit, low, kept=False)}"
            return "fail", f"{row.told(case, limit)}, {bound} in the population (95%{among})"
        high, row = max(highest, key=lambda each: each[0])
        text = f"at worst {worst_first(rows)[0].told(case, limit)}"
        bound = f"at most {self.shown(case, limit, high, kept=False)} in the population (95%)"
        if high <= limit.value:
            return "pass", f"{text}; the highest bound is that of {row.title}, {bound}"
        open_ones = sum(each > limit.value for each, _ in highest)
        assert row.lost is not None
        assert row.won is not None
        # Its own bound passes where it keeps the limit; where it does not, the shared bound has to break it.
        z = shared if compared(_drop(row), limit) > 0 else NormalDist().inv_cdf(1 - RISK)
        needed = told_needed(examples_for_drop(row.lost, row.won, row.examples, limit.value, z), f" of {row.title}")
        return "inconclusive", (
            f"{text}, and {open_ones:,} of {len(rows):,} slices may be beyond the limit, most of all {row.title} with "
            f"{_examples(row.examples)}, {bound}: {needed}"
        )

    def why_useless(self, case: Case) -> str:
        return is_worthless(case) or is_below_floor(case)

    def one_example(self, case: Case) -> float:
        """Of the slice with the worst drop."""
        if case.slices is None or not super().one_example(case):
            return super().one_example(case)
        worst = worst_first(slice_rows(case.slices))
        return float(Fraction(1, worst[0].examples)) if worst else 0.0

    def note(self, case: Case, limit: Limit) -> str:
        """Of slices of which one example is more than the limit. Bounds know that."""
        return "" if case.inference == "population" else told_too_small(case, limit)

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


def _passes(case: Case, rows: Sequence[SliceRow]) -> Passes:
    """What the worst drop may be in other passes, as far as the own flips of both sides bound it."""
    ranked = worst_first(rows)
    figure = _drop(ranked[0])
    if not told_repeats(case):
        return Passes(figure, figure, figure)
    if case.agreement is None or case.metric not in ("accuracy", "agreement"):
        return Passes(-math.inf, figure, math.inf)  # an answer may turn wrong while the first prediction stays
    own = own_flips(case)
    moves = [(_drop(row), Fraction(min(own, row.examples), row.examples)) for row in ranked]
    low, high = max(drop - move for drop, move in moves), max(drop + move for drop, move in moves)
    return Passes(max(Fraction(-1), low), figure, min(Fraction(1), high))


def _why_none(case: Case) -> str:
    reasons = dict.fromkeys(
        side.unmeasured["slices"]
        for side in (case.original, case.variant)
        if side is not None and "slices" in side.unmeasured
    )
    if case.slices is not None and case.slices.names:
        return f"{case.metric} has no value on any of the {len(case.slices.names):,} slices"
    why = "; ".join(reasons) or "there are no slices: only a classifier with targets has classes to tell apart"
    return why if "`slices:" in why else f"{why}; {_NAME_SLICES}"


def _drop(row: SliceRow) -> Number:
    assert row.drop is not None
    return row.drop


def _title(slices: Slices, name: str) -> str:
    text = plain(name)
    text = text if len(text) <= _LONGEST_TITLE else f"{text[:_LONGEST_TITLE]}..."
    return f"class {text}" if slices.of_classes else f"slice {text}"


def _examples(count: int) -> str:
    return f"{count:,} example{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


LIMITS = (
    MaxSliceDrop(
        "max_slice_drop",
        "max",
        "points",
        "slices",
        "The most by which the score may be worse on any one class, or on any slice that the project names.",
    ),
)
