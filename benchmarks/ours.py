"""Our own comparison of digits-vit with a copy of itself: what the gate does for one timed limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import REPOSITORY
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.results.metric import MetricSpec

try:
    from pytest_modelopt.selftest import trial
except ImportError as error:
    sys.exit(f"this benchmark needs pytest_modelopt.selftest.trial, which cannot be imported: {error}")

if TYPE_CHECKING:
    from pytest_modelopt.selftest import Trial

TIME_LIMIT_S = 20.0
"""Of timing, per comparison: the gate's own default."""


def compare(*, slowdown: float, max_slowdown: float, folder: Path, seed: int) -> Trial:
    """One trial in fresh workers. A limit of 10% more time is a speedup of at least 1/1.1."""
    variant = Variant(
        model="example_project.vision:load_model",
        recipe=None,
        data="example_project.vision:test_data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(REPOSITORY),),
        working_directory=str(REPOSITORY),
        environment=environment_now(),
    )
    return trial(
        variant,
        slowdown=slowdown,
        min_speedup=1 / (1 + max_slowdown),
        time_limit_s=TIME_LIMIT_S,
        folder=folder,
        seed=seed,
    )
