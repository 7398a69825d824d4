"""Controls: variants of the user's own model whose right verdict is known, measured and judged as any case is.

*identity* is the original against itself, *lossless* folds its batch norms, *sabotaged* zeroes most of its weights. A
gate in which one of them comes out wrong can either not pass or not fail on this model, whatever its table says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_modelopt.limits.catalogue import BUDGET_LIMITS, is_open
from pytest_modelopt.measuring.controller.process import WorkerFailed
from pytest_modelopt.measuring.controller.runner import Progress, Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.failing_control import Sabotage
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.figures import format_factor
from pytest_modelopt.results.verdicts import Limit
from pytest_modelopt.selftest.control_verdicts import (
    LOSSLESS,
    Budgets,
    Control,
    judge_identity,
    judge_lossless,
    judge_sabotaged,
)

ACCURACY_LIMITS = [name for name, kind in BUDGET_LIMITS.items() if kind.is_about_answers]
"""Limits that a sabotaged model must break."""
_STEP_LIMIT_S = 600.0


@dataclass(frozen=True)
class ControlPlan:
    """The model, and what its cases demand. Copies that differ by less than `speed_limit` count as equally fast."""

    variant: Variant
    name: str
    budgets: Budgets
    speed_limit: float
    time_limit_s: float
    inference: Inference
    """What the limits on accuracy are about."""
    recipes: tuple[Variant, ...]
    """The model's own variants; no control is made of them."""


def run_controls(plan: ControlPlan, progress: Progress) -> tuple[Control, ...]:
    """All controls, in one run of the gate's own runner.

    Raises:
        WorkerFailed: the original itself cannot be measured.
    """
    runner = Runner(StepLimits(plan.time_limit_s, _STEP_LIMIT_S), progress)

    def measured(name: str, recipe: Expression | None, limit: Limit | None = None) -> MeasuredCase:
        limits = [] if limit is None else [limit]
        case = runner.measure(
            _case(plan, name),
            replace(plan.variant, recipe=recipe, time_limit_s=None),  # the plan's is in the runner
            lambda samples, call: is_open(limits, samples, timed_limits=1, call=call),
        )
        if case.error is not None and runner.original_failed:
            raise WorkerFailed(case.error.message, case.error.output)
        return case

    try:
        return (
            judge_identity(measured("identity", None, _as_fast(plan.speed_limit)), plan.speed_limit),
            judge_lossless(measured("lossless", parse(LOSSLESS))),
            judge_sabotaged(measured("sabotaged", Expression.of([Sabotage()])), plan.budgets),
        )
    finally:
        runner.close()


def _case(plan: ControlPlan, name: str) -> PlannedCase:
    return PlannedCase(
        id=name,
        model=plan.name,
        recipe=name,
        limits=(),
        batch_size=plan.variant.batch_size,
        device=plan.variant.device,
        inference=plan.inference,
    )


def _as_fast(speed_limit: float) -> Limit:
    least = 1 / (1 + speed_limit)
    return Limit("min_speedup", least, format_factor(least), "error", "selftest", 0)


def accuracy_limits(cases: Mapping[str, tuple[Limit, ...]]) -> Budgets:
    """Of all limits of a model's cases those that a sabotaged model must break. A warning must be able to warn, too."""
    picked = {
        name: tuple(replace(limit, level="error") for limit in limits if limit.name in ACCURACY_LIMITS)
        for name, limits in cases.items()
    }
    return tuple((name, limits) for name, limits in picked.items() if limits)
