"""The books of ordinary models balance in every run: none of them falls out of the meter that is exact to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.protocol import Balance
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.results.metric import MetricSpec
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make

ROOT = Path(__file__).parents[2]
RECIPES = (None, "int8-dynamic", "int8-weight-only", "bf16")


OTHERS = (
    ("cnn", "int8-static"),
    ("cnn", "fold-batchnorm"),
    ("cnn", "channels-last"),
    ("cnn", "torchao-pt2e-int8"),
    ("encoder", "torchao-pt2e-int8"),
    ("encoder", "torchao-int8-dynamic"),
    ("encoder", "compile"),
    ("encoder", "prune-structured(ratio=0.5)"),
    ("mlp", "torchao-int8-weight-only"),
    ("mlp", "low-rank(ratio=0.5)"),
    ("mlp", "prune-unstructured(ratio=0.9)"),
    ("mlp", "fp16"),
)
"""Every other recipe whose variants the tensor meter reads, on a kind of model that it changes."""


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize(
    ("kind", "recipe"), [*((kind, recipe) for recipe in RECIPES for kind in [*KINDS, *TRAPS]), *OTHERS]
)
def test_the_books_balance(kind: str, recipe: str | None, tmp_path: Path) -> None:
    model, inputs = make(kind)
    files: dict[str, Any] = {"model": str(tmp_path / "model.pt"), "inputs": str(tmp_path / "inputs.pt")}
    size.save(inputs, Path(files["inputs"]))
    size.save(apply(recipe, model, inputs).model if recipe else model, Path(files["model"]))
    folder = str(ROOT)
    variant = Variant("", None, None, None, None, MetricSpec(), (folder,), folder)
    for run in range(2):
        worker = Worker(variant, tmp_path, f"run-{run}")
        try:
            found: Balance = worker.request("balance", limit_s=60, **files)
        finally:
            worker.close()
        assert found.hidden_bytes == 0, found.books
        assert found.books
        assert found.files == {}
        assert all(unexplained < room / 1.2 for unexplained, room in found.books), found.books
