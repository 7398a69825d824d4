"""All rules on one case. They are pure: a saved record can be examined again, without a model and without torch."""

from __future__ import annotations

from collections.abc import Callable

from pytest_modelopt.doctor import against, answers, coverage, fairness, gate, growth
from pytest_modelopt.doctor.evidence import Evidence
from pytest_modelopt.record.model import Case, Environment
from pytest_modelopt.record.verdicts import Finding

Rule = Callable[[Evidence], Finding | None]

RULES: tuple[Rule, ...] = (
    gate.original_useless,
    gate.majority_as_good,
    # it changed less than it says
    coverage.masks_only,
    coverage.dense_zeros,
    coverage.fake_quantization,
    coverage.not_lowered,
    coverage.left_alone,
    coverage.little_work,
    coverage.eager_torchao,
    coverage.engine,
    coverage.untied,
    growth.memory_in_layer,
    growth.size_in_file,
    # the comparison is unfair
    fairness.training_mode,
    fairness.answers_vary,
    fairness.unequal_footing,
    fairness.settings_changed,
    fairness.threads_beyond_cores,
    fairness.compiled_while_timed,
    fairness.preparation,
    fairness.size_is_not_peak,
    fairness.int8_without_instructions,
    fairness.fused_path,
    # the answers are wrong
    answers.saturation,
    answers.calibration_thin,
    answers.calibration_elsewhere,
    answers.slice_collapse,
    answers.churn,
    answers.flattened,
    answers.over_pruned,
    answers.does_not_reload,
)
"""Of a variant beside its original, in the order in which they are told."""
RULES_AGAINST: tuple[Rule, ...] = (
    against.runtime_changed,
    against.memory_moved,
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
