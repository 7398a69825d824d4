"""Variants whose timing is tested, and the runner that measures them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.metric import MetricSpec

SOURCE = (Path(__file__).parents[1] / "users" / "timed_user.py").read_text(encoding="utf-8")


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Variant]:
    (tmp_path / "timed_user.py").write_text(SOURCE, encoding="utf-8")

    def make(model: str = "model", recipe: str | None = None) -> Variant:
        return Variant(
            f"timed_user:{model}",
            parse(recipe) if recipe else None,
            "timed_user:data",
            None,
            None,
            MetricSpec(),
            (str(tmp_path),),
            str(tmp_path),
        )

    return make


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=3, step_limit_s=60), Silent())
    yield made
    made.close()
