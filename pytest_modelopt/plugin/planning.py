"""What is planned for an entry of budgets.yaml: its variant, its case, and what its limits say before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.results.answers import Inference
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.source import ProgramSource, Source
from pytest_modelopt.results.verdicts import Limit

if TYPE_CHECKING:
    from pytest_modelopt.config.loader import BudgetsFile, ModelEntry
    from pytest_modelopt.measuring.variant import Variant
    from pytest_modelopt.optimizing.expression import Expression
    from pytest_modelopt.results.candidate import Candidate
    from pytest_modelopt.results.workload import Workload


def planned_case(
    case_id: str, model: str, limits: Sequence[Limit], variant: Variant, inference: Inference
) -> PlannedCase:
    """A case of which nothing was measured yet."""
    return PlannedCase(
        id=case_id,
        model=model,
        recipe=variant.label,
        limits=tuple(limits),
        batch_size=variant.batch_size,
        device=variant.device,
        inference=inference,
        threads=variant.threads,
        workload=variant.workload,
        call=variant.call_name,
        optimize=variant.optimize,
        generation=variant.generation,
    )


def variant_of(
    budgets: BudgetsFile,
    model: ModelEntry,
    recipe: Expression | None,
    working_directory: Path,
    candidate: Candidate | None = None,
    workload: Workload | None = None,
) -> Variant:
    """A model of budgets.yaml as a variant, at its first workload where none is given. Its factories are looked for
    beside the file first."""
    from pytest_modelopt.measuring.variant import Variant, environment_now

    at = workload or model.workloads[0]
    return Variant(
        model=_absolute(model.origin, budgets.path.parent),
        recipe=recipe,
        data=model.data,
        calibration=model.calibration,
        example_inputs=None,
        metric=model.metric,
        slices=model.slices,
        batch_of=model.batch_of,
        call=model.call,
        optimize=model.optimize,
        generation=model.generation,
        import_paths=(str(budgets.path.parent),),
        working_directory=str(working_directory),
        environment=environment_now(),
        candidate=None
        if candidate is None
        else replace(candidate, origin=_absolute(candidate.origin, budgets.path.parent)),
        points=tuple(each for each in model.workloads if each.name and each.device == at.device),
    ).at(at)


def _absolute(origin: Source | ProgramSource, folder: Path) -> Source | ProgramSource:
    return origin.within(folder) if isinstance(origin, ProgramSource) else origin


def breaks_limit_on(*figures: str) -> Callable[[MeasuredCase], bool]:
    """Whether a case breaks a limit on these figures, as far as it was measured."""
    from pytest_modelopt.judging.judge import judge
    from pytest_modelopt.limits.catalogue import LIMITS

    def breaks(case: MeasuredCase) -> bool:
        about = tuple(limit for limit in case.limits if limit.name in LIMITS and LIMITS[limit.name].figure in figures)
        verdicts = judge(replace(case, limits=about), timed_limits=0).verdicts
        return any(verdict.outcome in ("fail", "waived") for verdict in verdicts)

    return breaks


def misfits(limits: Sequence[Limit], variant: Variant) -> list[str]:
    """A marker is read before its metric is known: `max_accuracy_drop=1` would be a limit that nothing can break."""
    from pytest_modelopt.limits.catalogue import misfit

    return [text for limit in limits if (text := misfit(limit, _metric_name(variant)))]


def _metric_name(variant: Variant) -> str | None:
    return variant.metric.name if isinstance(variant.metric.name, str) else None
