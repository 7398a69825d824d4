"""The one way to a verdict: a pure function of a measured case and its limits.

It needs no model and no torch, so a saved record can be judged again, also against other limits. How a limit judges
stands in `limits`, one module for each family.
"""

from __future__ import annotations

from pytest_modelopt.judging.waivers import waive
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.limits.comparable import not_comparable
from pytest_modelopt.results.case import Case, MeasuredCase, next_stage
from pytest_modelopt.results.verdicts import Limit, Verdict


def judge(case: MeasuredCase, *, timed_limits: int) -> Case:
    """The case with one verdict for each of its limits, in their order.

    A case in error has no verdicts, and neither has one that is not at the base.

    `timed_limits` is the number of timed limits in the whole run, among which the risk of a false FAIL is shared.
    """
    if case.error is not None or (case.base is not None and case.base.status == "new"):
        return next_stage(Case, case, verdicts=())
    known = [limit for limit in case.limits if limit.name in LIMITS]  # another one stays unjudged, which is never green

    def judged(limit: Limit) -> Verdict:
        return _judge_limit(case, limit, timed_limits)

    return next_stage(Case, case, verdicts=tuple(waive(judged(limit), judged) for limit in known))


def _judge_limit(case: MeasuredCase, limit: Limit, timed_limits: int) -> Verdict:
    kind = LIMITS[limit.name]
    if kind.against == "base":
        return not_comparable(kind, case, limit) or kind.judge(case, limit, timed_limits)
    if case.base is not None:
        return kind.not_measured(limit, "not-against-base")
    return kind.judge(case, limit, timed_limits)
