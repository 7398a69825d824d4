"""What is compared of two runs, of which one was on a fleet."""

from __future__ import annotations

from pytest_modelopt.results.case import Case


def exact(case: Case) -> tuple[object, ...]:
    """What repeats, the outcomes of all verdicts among it."""
    figures = case.variant and (case.variant.memory_bytes, case.variant.size_bytes, case.variant.score)
    verdicts = [(each.limit, each.outcome) for each in case.verdicts]
    return case.id, case.limits, figures, case.coverage, case.drop, case.error and case.error.stage, verdicts
