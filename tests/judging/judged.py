"""One limit of a case, judged, with its sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_modelopt.judging.judge import judge
from pytest_modelopt.reporting.messages.verdicts import format_verdict
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit, Verdict


@dataclass(frozen=True)
class Judged:
    """A verdict and what reports say of it."""

    verdict: Verdict
    sentence: str

    @property
    def outcome(self) -> str:
        return self.verdict.outcome

    @property
    def measured(self) -> float | None:
        return self.verdict.measured

    @property
    def is_red(self) -> bool:
        return self.verdict.is_red


def judged(of: Case, limit: Limit, *others: Limit, timed_limits: int = 0) -> Judged:
    """The verdict on `limit`; `others` are limits of the case, too."""
    case = judge(replace(of, limits=(limit, *others)), timed_limits=timed_limits)
    return Judged(case.verdicts[0], format_verdict(case, case.verdicts[0]))
