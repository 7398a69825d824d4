"""What a case comes to, all its verdicts together: pure functions of the record."""

from __future__ import annotations

from typing import Literal

from pytest_modelopt.record.model import Case, Record
from pytest_modelopt.record.verdicts import Limit

CaseOutcome = Literal["error", "fail", "inconclusive", "warn", "pass", "no limits", "new"]


def unjudged_limits(case: Case) -> tuple[Limit, ...]:
    """Limits of the case that no verdict speaks about. A limit that was forgotten must never look like a kept one."""
    if case.base is not None and case.base.status == "new":
        return ()
    judged = {verdict.limit.name for verdict in case.verdicts}
    return tuple(limit for limit in case.limits if limit.name not in judged)


def case_outcome(case: Case, strict: bool) -> CaseOutcome:
    """The worst that the case's verdicts say. Under `strict` an inconclusive limit of level error fails."""
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


def record_is_red(record: Record) -> bool:
    """Whether the run fails. A planned case that was not run is reported (`not_run`), but is not red by itself.

    A merged record speaks for a whole commit: there it is red, and so is a job that was interrupted.
    """
    if any(is_red(case, record.strict) for case in record.cases):
        return True
    return record.merged is not None and (not record.complete or bool(not_run(record)))


def not_run(record: Record) -> tuple[str, ...]:
    """Node ids of the cases that were planned and of which the record holds nothing.

    The second and later cases of one test have ids that end in `#2`, `#3`, ...: they belong to the planned test.
    """
    run = {node_id for case in record.cases for node_id in (case.id, case.id.rpartition("#")[0])}
    return tuple(planned for planned in record.planned if planned not in run)
