"""Whether limits on a score fit the scale of the scores that a metric of the project's own gives."""

from __future__ import annotations

from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.metric import is_share
from pytest_modelopt.results.verdicts import Limit


def unfit_for_scores(case: MeasuredCase) -> str:
    """Why a limit does not fit the scores that a metric of the project's own gives; else empty.

    `97%` means 0.97: against a score of 93.5 it would be a floor that nothing can break. A drop of 1 is one that
    nothing can break from scores between 0 and 1.
    """
    sides = [side.score for side in (case.reference, case.variant) if side is not None and side.score is not None]
    largest = max((abs(score) for score in sides), default=0.0)
    if is_share(case.metric):
        return ""
    if largest <= 1:
        drops = [limit for limit in case.limits if LIMITS[limit.name].unit == "points"]
        return "; ".join(_allowing_every_drop(case, limit) for limit in drops if _allows_every_drop(case, limit))
    return "; ".join(
        f"{limit.name}: {limit.text} means {limit.value:g}, which belongs to scores from 0 to 1, but {case.metric} "
        f"gives {largest:.4g}: write a plain number in the metric's unit ({limit.file}:{limit.line})"
        for limit in case.limits
        if LIMITS[limit.name].is_of_score and limit.text.rstrip().endswith(("pp", "%"))
    )


def _allows_every_drop(case: MeasuredCase, limit: Limit) -> bool:
    """Whether a plain number is as much as the original's score can lose, as far as the worst one is known."""
    side = case.reference
    if side is None or side.score is None or side.observations is None or side.observations.worst_score is None:
        return False
    is_plain = not limit.text.rstrip().endswith("pp")
    return is_plain and limit.value >= max(1.0, abs(side.score - side.observations.worst_score))


def _allowing_every_drop(case: MeasuredCase, limit: Limit) -> str:
    return (
        f"{limit.name}: {limit.text} would allow every drop of {case.metric}; if you mean "
        f"percentage points, write {limit.text} pp ({limit.file}:{limit.line})"
    )
