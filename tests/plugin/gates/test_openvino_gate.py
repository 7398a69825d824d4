"""openvino-int8 from budget to report: made, saved, scored, timed and gated beside the model in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.results.json import read

with telemetry.off():
    import nncf  # noqa: F401 -- pytester forgets what an inner run imported, and it cannot be imported twice
    import openvino  # noqa: F401

Project = Callable[..., pytest.Pytester]

BUDGETS = """
version: 1
models:
  classifier:
    factory: shop:classifier
    data: shop:data
    calibration: shop:nearly_the_data
    recipes:
      openvino-int8(batches=2):
        max_size: 110 kB
        max_accuracy_drop: 5 pp
"""
MATRICES = 64 * 512 + 512 * 64 + 64 * 10
BIASES = 512 + 64 + 10


def test_a_model_is_quantized_by_nncf_and_gated_on_openvino(project: Project) -> None:
    result = project(BUDGETS).runpytest("--modelopt", "--modelopt-report=report")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*classifier*", "*original*", "*openvino-int8(batches=2)*"])
    (case,) = read(Path("report/record.json")).cases
    assert case.error is None
    assert case.reference is not None
    assert case.variant is not None
    assert (case.reference.runtime, case.variant.runtime) == (None, "OpenVINO")
    assert case.variant.weights_bytes is None
    assert MATRICES + 4 * BIASES < (case.variant.size_bytes or 0) < 110_000 < (case.reference.size_bytes or 0)
    assert case.coverage is not None
    assert case.coverage.changed_bytes == 4 * MATRICES
    assert case.coverage.weight_bytes == 4 * (MATRICES + BIASES)
