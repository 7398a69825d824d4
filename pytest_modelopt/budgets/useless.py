"""When the original is so wrong that a limit relative to it says nothing: then that limit must not be kept."""

from __future__ import annotations

from pytest_modelopt.figures import format_percentage
from pytest_modelopt.record.model import Case, Limit
from pytest_modelopt.record.observations import Observations

FEW_EXAMPLES = 5
"""Examples of rarer classes from which on a model that never answers with one of them is told to be constant."""


def why_useless(case: Case, limit: Limit) -> str:
    """Why `limit` means nothing against this original, in words; '' where it does, or where nobody can tell.

    A drop needs an original that is better than guessing; flips need one that tells classes apart. Data with a single
    class can show neither, and nothing is said about it.
    """
    if limit.name == "max_accuracy_drop":
        return is_constant(case) or is_chance(case) or _is_below_floor(case)
    return is_constant(case) if limit.name == "max_flips" else ""


def is_constant(case: Case) -> str:
    """Whether the original predicts one class only, where there are several."""
    seen = _accuracy_observations(case)
    if seen is None or seen.predicted_classes != 1 or (seen.rarer_targets or 0) < FEW_EXAMPLES:
        return ""  # to miss the one rare example that there is shows nothing
    return f"the original predicts the same class for every example, of {seen.target_classes} classes"


def is_chance(case: Case) -> str:
    """Whether the original is right no more often than guessing among the classes of the data."""
    seen = _accuracy_observations(case)
    if seen is None or seen.target_classes is None or case.original is None or case.original.score is None:
        return ""
    classes = max(seen.target_classes, seen.output_classes or 0)  # the data may show a few of those that it knows
    if case.original.score * classes > 1:
        return ""
    return (
        f"the original itself is right on {format_percentage(case.original.score)} of the examples, no more than "
        f"guessing among {classes} classes, and from there no drop means anything"
    )


def _is_below_floor(case: Case) -> str:
    """Both below `min_accuracy`. A variant above it needs no better original to be good enough."""
    floor = next((limit for limit in case.limits if limit.name == "min_accuracy"), None)
    sides = [side.score for side in (case.original, case.variant) if side is not None]
    if floor is None or len(sides) < 2 or any(score is None or not _falls_short(case, score, floor) for score in sides):
        return ""
    return (
        f"the original itself does not reach min_accuracy {floor.text}: a model that is wrong before and after has "
        "dropped nothing"
    )


def _falls_short(case: Case, score: float, floor: Limit) -> bool:
    return score < floor.value if case.higher_is_better else score > floor.value


def _accuracy_observations(case: Case) -> Observations | None:
    """What was seen of the original's predictions; None where the data has fewer than two classes."""
    seen = case.original.observations if case.original is not None else None
    if case.metric != "accuracy" or seen is None or seen.target_classes is None or seen.target_classes < 2:
        return None
    return seen
