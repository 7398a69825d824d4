"""The weight-only recipes in a user's own tests: sizes to the byte, answers that hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.small_project import run

Project = Callable[..., pytest.Pytester]


def test_weight_only_recipes_are_measured_to_the_byte_and_hold_their_budgets(project: Project) -> None:
    result = run(
        project,
        """
WEIGHTS, ROWS = 64 * 512 + 512 * 4, 512 + 4  # int8 weights; and a float32 scale and bias for each row
ORIGINAL = 4 * (WEIGHTS + ROWS)

# in a call a half of the larger layer, 64 kB, is in floating point
@pytest.mark.model_budget(max_memory="120 kB", max_size="60 kB", max_accuracy_drop="5 pp")
def test_ours(modelopt):
    model = net()
    result = modelopt(model, "int8-weight-only", data=labelled(model))
    assert result.original.weights_bytes == ORIGINAL
    assert result.variant.weights_bytes == WEIGHTS + ROWS * (4 + 4)
    assert result.coverage.changed_bytes == 4 * WEIGHTS

@pytest.mark.model_budget(max_memory="200 kB", max_size="60 kB", max_accuracy_drop="5 pp")
def test_torchao(modelopt):
    model = net()
    result = modelopt(model, "torchao-int8-weight-only", data=labelled(model))
    assert result.variant.weights_bytes == WEIGHTS + ROWS * (4 + 1 + 4)  # and a zero point
    assert result.coverage.changed_bytes == 4 * WEIGHTS
""",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*int8-weight-only*", "*torchao-int8-weight-only*"])
