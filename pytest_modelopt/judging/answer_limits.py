"""Verdicts on limits about answers: on these very examples, or on the population that they were drawn from.

Under `inference: population` a limit is kept only where the one-sided 95% bound keeps it, and broken only where the
opposite bound breaks it; a bound that lies exactly on the limit keeps it. Between the two it is inconclusive. Where a
variant does not repeat itself, the same holds for its passes: what some keep and others break is inconclusive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from pytest_modelopt.judging.baseline_sanity import why_useless
from pytest_modelopt.judging.deciding import Number, bounds_from_above, decide
from pytest_modelopt.judging.repeated_passes import Passes, exact_score, over_passes, passes_of, told_repeats
from pytest_modelopt.judging.slice_limits import judge_slices
from pytest_modelopt.judging.verdict_text import (
    by_how_much,
    not_measured,
    shown,
    told_drop,
    told_needed,
    undecided,
    verdict,
)
from pytest_modelopt.results.record import Case
from pytest_modelopt.results.verdicts import Limit, Verdict
from pytest_modelopt.statistics.needed import examples_for_drop, examples_for_interval, examples_for_share
from pytest_modelopt.statistics.proportions import drop_bounds, share_bounds

ANSWER_LIMITS = ("max_accuracy_drop", "min_accuracy", "max_slice_drop", "max_flips", "max_accuracy_loss")
_DROPS = ("max_accuracy_drop", "max_accuracy_loss")
"""Of the whole score: against the original, and against the base."""


def judge_answers(case: Case, limit: Limit) -> Verdict:
    if limit.name == "max_slice_drop":
        return judge_slices(case, limit)
    figure = _FIGURES[limit.name](case)
    if figure is None:
        return not_measured(case, limit)
    useless = why_useless(case, limit)
    if useless and case.base is None:
        return not_measured(case, limit, useless)
    passes = passes_of(case, limit, figure)
    if case.inference == "set":
        return _on_the_set(case, limit, passes)
    if limit.name in _DROPS and case.interval_lacks_examples and case.variant is not None:
        told = told_drop(case, limit, float(figure), kept=False)
        text = f"{told} on {case.variant.examples:,} examples; {case.no_interval}"
        return verdict(case, limit, "inconclusive", figure, text)
    bounds = _bounds(case, limit, float(figure))
    if isinstance(bounds, str):
        why = f"{bounds}; `inference: set` judges these examples themselves"
        if case.base is not None:
            return undecided(case, limit, f"{told_drop(case, limit, float(figure), kept=False)}, but {why}", figure)
        return not_measured(case, limit, why)
    return _in_the_population(case, limit, passes, bounds)


# --- figures on these examples ---------------------------------------------------------------------------------------


def _drop(case: Case) -> Number | None:
    """Counted exactly where predictions were compared one by one, else the difference of the two scores."""
    if case.agreement is not None:
        changed = case.agreement
        return Fraction(changed.right_to_wrong - changed.wrong_to_right, changed.examples)
    if case.drop is None or case.original is None or case.variant is None:
        return None
    assert case.original.score is not None
    assert case.variant.score is not None
    before, after = exact_score(case, case.original.score), exact_score(case, case.variant.score)
    return before - after if case.higher_is_better else after - before


def _score(case: Case) -> Number | None:
    return None if case.variant is None or case.variant.score is None else exact_score(case, case.variant.score)


def _flips(case: Case) -> Number | None:
    return Fraction(case.agreement.flips, case.agreement.examples) if case.agreement else None


_FIGURES: dict[str, Callable[[Case], Number | None]] = {
    "max_accuracy_drop": _drop,
    "max_accuracy_loss": _drop,
    "min_accuracy": _score,
    "max_flips": _flips,
}


# --- verdicts --------------------------------------------------------------------------------------------------------


def _on_the_set(case: Case, limit: Limit, passes: Passes) -> Verdict:
    decision = decide(case, limit, passes.low, passes.high)
    figure = float(passes.figure)
    text = f"{told_drop(case, limit, figure, kept=decision == 'pass')}{over_passes(case, limit, passes)}"
    if decision == "fail":
        text += by_how_much(case, limit, figure)
    elif decision == "inconclusive" and passes.is_known:
        text += ", and the limit lies between"
    if passes.differ:
        text += f"; {told_repeats(case)}"
    return verdict(case, limit, decision, figure, text)


# --- the population --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bounds:
    """One-sided 95% bounds of a figure in the population, and about how many examples would decide its limit."""

    low: float
    high: float
    examples: int
    needed: int | None


def _bounds(case: Case, limit: Limit, figure: float) -> _Bounds | str:
    """The bounds, or why there are none."""
    changed = case.agreement
    if changed is None:
        return _interval(case, limit, figure)
    examples = changed.examples
    if limit.name in _DROPS:
        lost, won = changed.right_to_wrong, changed.wrong_to_right
        needed = examples_for_drop(lost, won, examples, limit.value)
        return _Bounds(*drop_bounds(lost, won, examples), examples, needed)
    count = changed.flips if limit.name == "max_flips" else round(figure * examples)
    if not 0 <= count <= examples:
        return f"a score of {figure:g} is no share of {examples} examples"
    return _Bounds(*share_bounds(count, examples), examples, examples_for_share(count, examples, limit.value))


def _interval(case: Case, limit: Limit, figure: float) -> _Bounds | str:
    if limit.name not in _DROPS:
        return f"{case.metric} is not right-or-wrong per example, and of such a metric only the drop gets an interval"
    if case.interval is None or case.variant is None:
        return f"the drop has no interval: {case.no_interval or 'the run made none'}"
    # An interval that does not hold what was measured would decide against the very examples.
    low, high = min(case.interval.low, figure), max(case.interval.high, figure)
    examples = case.variant.examples
    return _Bounds(low, high, examples, examples_for_interval(figure, low, high, examples, limit.value))


def _in_the_population(case: Case, limit: Limit, passes: Passes, bounds: _Bounds) -> Verdict:
    decision = decide(case, limit, bounds.low, bounds.high)
    text = f"{told_drop(case, limit, float(passes.figure), kept=decision != 'fail')} on {bounds.examples:,} examples"
    low, high = (shown(case, limit, end, kept=False) for end in (bounds.low, bounds.high))
    if decision == "inconclusive":
        text += (
            f", {low} to {high} in the population (95% on each side), and the limit lies between: "
            f"{told_needed(bounds.needed)}"
        )
    else:
        is_upper = bounds_from_above(case, limit) == (decision == "pass")
        text += f", {f'at most {high}' if is_upper else f'at least {low}'} in the population (95%)"
    if passes.differ:
        text += f"{over_passes(case, limit, passes)}; {told_repeats(case)}"
        if decide(case, limit, passes.low, passes.high) != decision:
            decision = "inconclusive"
    return verdict(case, limit, decision, passes.figure, text)
