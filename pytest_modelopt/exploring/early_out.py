"""The rule by which a candidate is out after some of the answers: its drop or its flips are certainly too many."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.measuring.controller.looks import LOOKS
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.statistics.certain import certain_drop, certain_share

RISK = 0.001
"""The probability that a candidate that keeps its limits is left out: shared by all looks and by the two limits."""
_NAMES = ("max_accuracy_drop", "max_flips")


def why_out(case: MeasuredCase, limits: Sequence[Limit]) -> str:
    """The reason, where the agreement on random examples shows for certain that a limit of level `error` is broken on
    all of them; else ''."""
    seen = case.agreement
    assert seen is not None
    alpha = RISK / len(LOOKS) / len(_NAMES)
    for limit in limits:
        if limit.level != "error" or limit.name not in _NAMES:
            continue
        if limit.name == "max_flips":
            low = certain_share(seen.flips, seen.examples, alpha)[0]
        else:
            most = _most_won(case)
            low = certain_drop(seen.right_to_wrong, seen.wrong_to_right, seen.examples, alpha, most)
        if low > limit.value:
            shown = f"{seen.examples} examples, drawn at random, show at least "
            least = LIMITS[limit.name].format(low, unit_interval=True)
            return f"{shown}{least}: it breaks {limit.name} {limit.text}"
    return ""


def _most_won(case: MeasuredCase) -> float:
    """The share of the examples that can be right in the variant only: of these very ones, those that the original
    answers wrongly. The score of a metric that is right-or-wrong is the share of right answers."""
    score = case.reference.score if case.reference is not None else None
    return 1.0 if case.inference == "population" or score is None else 1.0 - score
