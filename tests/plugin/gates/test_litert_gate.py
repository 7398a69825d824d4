"""A model gated in LiteRT, from budgets.yaml to the table: int8 weights in another runtime, with its own size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]

WEIGHTS = 64 * 512 + 512 * 64 + 64 * 10
BIASES = 512 + 64 + 10


def test_int8_in_litert_keeps_its_budgets(project: Project) -> None:
    """One byte a weight and four a bias, and what the program says about its operators: some kilobytes."""
    limits = "{max_size: 100 kB, max_accuracy_drop: 10 pp, min_coverage: 95%}"
    result = project(one_case(limits, recipe="litert-int8")).runpytest("--modelopt", "--modelopt-report=report")
    result.assert_outcomes(passed=1)
    (case,) = read(Path("report/record.json")).cases
    assert case.variant is not None
    assert case.variant.size_bytes is not None
    assert WEIGHTS + 4 * BIASES < case.variant.size_bytes < WEIGHTS + 4 * BIASES + 16_000
    assert case.variant.runtime == "LiteRT"
    assert case.coverage is not None
    assert case.coverage.changed_bytes == 4 * WEIGHTS
