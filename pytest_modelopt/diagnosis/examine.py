"""All rules on one case. They are pure: a saved record can be examined again, without a model and without torch."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.diagnosis import (
    base_changes,
    empty_comparison,
    growth,
    layers_at_fault,
    small_coverage,
    unfair_timing,
    wrong_alike,
    wrong_answers,
)
from pytest_modelopt.diagnosis.evidence import Evidence
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Environment
from pytest_modelopt.results.verdicts import Finding

Rule = Callable[[Evidence], Finding | None]

RULES: tuple[Rule, ...] = (
    empty_comparison.original_useless,
    empty_comparison.majority_as_good,
    # it changed less than it says
    small_coverage.masks_only,
    small_coverage.dense_zeros,
    small_coverage.fake_quantization,
    small_coverage.not_lowered,
    small_coverage.left_alone,
    small_coverage.little_work,
    small_coverage.eager_torchao,
    small_coverage.engine,
    small_coverage.untied,
    growth.memory_in_layer,
    growth.size_in_file,
    # the comparison is unfair
    unfair_timing.training_mode,
    unfair_timing.answers_vary,
    unfair_timing.unequal_footing,
    unfair_timing.fell_back_to_cpu,
    unfair_timing.settings_changed,
    unfair_timing.threads_beyond_cores,
    unfair_timing.compiled_while_timed,
    unfair_timing.preparation,
    unfair_timing.size_is_not_peak,
    unfair_timing.int8_without_instructions,
    unfair_timing.fused_path,
    # the answers are wrong
    wrong_alike.wrong_alike,
    wrong_answers.untrained,
    layers_at_fault.layers_at_fault,
    wrong_answers.saturation,
    wrong_answers.calibration_thin,
    wrong_answers.calibration_elsewhere,
    wrong_answers.slice_collapse,
    wrong_answers.churn,
    wrong_answers.flattened,
    wrong_answers.over_pruned,
    wrong_answers.does_not_reload,
)
"""Of a variant beside its original, in the order in which they are told."""
RULES_AGAINST: tuple[Rule, ...] = (
    base_changes.runtime_changed,
    unfair_timing.fell_back_to_cpu,
    base_changes.memory_moved,
    growth.memory_in_layer,
    growth.size_in_file,
)
"""Of head beside its base."""


def examine(case: Case, environment: Environment | None) -> tuple[Finding, ...]:
    """What explains the case's figures. Of a case in error its message says it all."""
    if case.error is not None or (case.base is not None and case.base.status != "compared"):
        return ()
    evidence = Evidence(case, environment)
    rules = RULES if case.base is None else RULES_AGAINST
    return tuple(finding for rule in rules if (finding := rule(evidence)) is not None)
