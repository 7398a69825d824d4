"""The names that users import: each is there, documented, and the type of what a fixture gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pytest_modelopt

TYPED = """
from pytest_modelopt import Comparison, ModelOpt, Optimized, Optimizer

def test_compared(modelopt: ModelOpt) -> None:
    assert type(modelopt) is ModelOpt
    assert type(modelopt("shop:classifier", "bf16", data="shop:data")) is Comparison

def test_optimized(optimize: Optimizer) -> None:
    assert type(optimize) is Optimizer
    assert type(optimize("shop:classifier", "bf16", data="shop:data")) is Optimized
"""


@pytest.mark.parametrize("name", pytest_modelopt.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(pytest_modelopt, name) is not None
    assert name in dir(pytest_modelopt)
    root = Path(pytest_modelopt.__file__).parent.parent
    texts = [page.read_text(encoding="utf-8") for page in (root / "README.md", *(root / "docs").glob("*.md"))]
    assert any(re.search(rf"\b{name}\b", text) for text in texts), "a user finds it in no document"


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Measure'"):
        pytest_modelopt.Measure  # noqa: B018


def test_the_fixtures_give_what_their_annotations_say(project: Callable[..., pytest.Pytester]) -> None:
    pytester = project(None)
    (pytester.path / "test_it.py").write_text(TYPED, encoding="utf-8")
    arguments = ("--modelopt", "--modelopt-time-limit=1 ms", "-p", "no:cacheprovider")
    pytester.runpytest(*arguments).assert_outcomes(passed=2)
