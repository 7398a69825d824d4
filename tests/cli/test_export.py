"""`pytest-modelopt export`: the file that it writes is what was measured, and gates as a candidate as it did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read
from tests.plugin.conftest import project  # noqa: F401

BUDGETS = """version: 1
models:
  m:
    factory: shop:classifier
    data: shop:data
    recipes: {onnxruntime-int8-dynamic: {max_flips: 10%}, litert: {max_flips: 10%}}
"""
CANDIDATES = """    candidates:
      onnx: {file: dist/shipped.onnx, max_flips: 10%}
      tflite: {file: dist/m-litert.tflite, max_flips: 10%}
"""


def test_the_exported_file_has_the_figures_of_its_recipe(
    project: Callable[..., pytest.Pytester],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytester = project(BUDGETS)
    monkeypatch.chdir(pytester.path)
    assert main(["export", "m", "onnxruntime-int8-dynamic", "--name", "shipped"]) == 0
    assert main(["export", "m", "litert", "--output", "dist"]) == 0
    told = capsys.readouterr().out
    for name in ("shipped.onnx", "m-litert.tflite"):
        content = (Path("dist") / name).read_bytes()
        line = f"dist/{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"
        assert line in told.splitlines()
    (pytester.path / "budgets.yaml").write_text(BUDGETS + CANDIDATES, encoding="utf-8")
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)
    cases = {case.recipe: case for case in read(pytester.path / "report" / "record.json").cases}
    for recipe, candidate in (("onnxruntime-int8-dynamic", "onnx"), ("litert", "tflite")):
        assert cases[recipe].agreement == cases[candidate].agreement
        assert cases[recipe].drop == cases[candidate].drop


def test_a_torch_variant_is_saved_as_a_module(
    project: Callable[..., pytest.Pytester],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytester = project(BUDGETS)
    monkeypatch.chdir(pytester.path)
    assert main(["export", "m", "low-rank( ratio=0.5 )"]) == 0
    assert "dist/m-low-rank_ratio_0.5_.pt: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["n", "bf16"], "has no model 'n'"),
        (["m", "bf61"], "unknown recipe 'bf61'; did you mean 'bf16'?"),
        (["m", "bf16", "--name", "../x"], "--name: '../x' is no plain name of a file"),
        (["m", "fold-batchnorm"], "m/fold-batchnorm: fold-batchnorm changed nothing"),
    ],
)
def test_what_cannot_be_exported_is_said(
    project: Callable[..., pytest.Pytester],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(project(BUDGETS).path)
    assert main(["export", *arguments]) == 2
    assert told in capsys.readouterr().err
