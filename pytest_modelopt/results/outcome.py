"""What a case comes to, all its verdicts together: pure functions of the record."""

from __future__ import annotations

from typing import Literal

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit

CaseOutcome = Literal["error", "fail", "inconclusive", "warn", "pass", "no limits", "new", "xfailed", "xpassed"]


def unjudged_limits(case: Case) -> tuple[Limit, ...]:
    """Limits of the case that no verdict speaks about. A limit that was forgotten must never look like a kept one."""
    if case.base is not None and case.base.status == "new":
        return ()
    judged = {verdict.limit.name for verdict in case.verdicts}
    return tuple(limit for limit in case.limits if limit.name not in judged)


def case_outcome(case: Case, strict: bool) -> CaseOutcome:
    """The worst that the case's verdicts say. Under `strict` an inconclusive limit of level error fails.

    What was expected to fail is neither kept nor broken, whatever its verdicts say.
    """
    judged = _judged(case, strict)
    if case.expected is None:
        return judged
    return "xfailed" if judged in ("error", "fail") else case.expected.outcome


def _judged(case: Case, strict: bool) -> CaseOutcome:
    if case.error is not None:
        return "error"
    if case.base is not None and case.base.status == "new":
        return "new"
    unjudged = unjudged_limits(case)
    inconclusive = any(v.outcome == "inconclusive" and v.limit.level == "error" for v in case.verdicts)
    if any(verdict.is_red for verdict in case.verdicts) or any(limit.level == "error" for limit in unjudged):
        return "fail"
    if inconclusive:
        return "fail" if strict else "inconclusive"
    if warnings(case):
        return "warn"
    return "pass" if case.limits or case.verdicts else "no limits"


def warnings(case: Case) -> int:
    """How many limits of level warn were not kept, not decided, not measured or not judged."""
    told = sum(v.limit.level == "warn" and v.outcome in ("fail", "inconclusive", "not measured") for v in case.verdicts)
    return told + sum(limit.level == "warn" for limit in unjudged_limits(case))


def is_red(case: Case, strict: bool) -> bool:
    """Whether this case fails the run."""
    return case_outcome(case, strict) in ("error", "fail")
