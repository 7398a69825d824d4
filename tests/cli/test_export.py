"""`pytest-modelopt export`: the file that it writes is what was measured, and gates as a candidate as it did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.cli.main import main
from pytest_modelopt.results.json import read
from tests.plugin.small_project import MODELS, project  # noqa: F401

BUDGETS = """version: 1
models:
  m:
    factory: shop:classifier
    data: shop:data
    budget: {max_flips: 10%}
    recipes: {onnxruntime-int8-dynamic: {}, litert: {}, low-rank(ratio=0.5): {max_flips: 40%}, int8-dynamic: {}}
"""
RECIPES = {"onnxruntime-int8-dynamic": "onnx", "litert": "tflite", "low-rank(ratio=0.5)": "pt2", "int8-dynamic": "pt"}
CANDIDATES = """    candidates:
      onnx: {file: dist/shipped.onnx}
      tflite: {file: dist/m-litert.tflite}
      pt2: {file: dist/m-low-rank_ratio_0.5_.pt2, max_flips: 40%}
      pt: {factory: "dist.m_int8_dynamic:load"}
"""


MADE = """
from torch import nn
from shop import classifier

SCALE = 1

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = classifier()

    def forward(self, x):
        return self.layers(x) * SCALE

def reader():
    return Reader().eval()
"""
OTHERS = {
    "made.py": (
        MADE.replace("SCALE = 1", "SCALE = 2"),
        "the weights that were measured and answers differently: the code",
    ),
    "shop.py": (
        MODELS.replace("seed(0)", "seed(5)", 1),
        "made again, the variant is not what was measured: its",
    ),
}


def test_the_exported_file_has_the_figures_of_its_recipe(
    project: Callable[..., pytest.Pytester],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    budgets = BUDGETS.replace("shop:classifier", "made:reader")
    pytester = project(budgets)
    pytester.makepyfile(made=MADE)
    monkeypatch.chdir(pytester.path)
    assert main(["export", "m", "onnxruntime-int8-dynamic", "--name", "shipped"]) == 0
    assert main(["export", "m", "litert", "--output", "dist"]) == 0
    assert main(["export", "m", "low-rank( ratio=0.5 )"]) == 0
    assert main(["export", "m", "int8-dynamic"]) == 0
    told = capsys.readouterr().out
    assert "gate it as a candidate by `factory: dist.m_int8_dynamic:load`" in told
    assert " ".join(told.split()).count("nothing says that it is what the gate measured: modelopt-report/") == 4
    sums = {}
    for name in ("shipped.onnx", "m-litert.tflite", "m-low-rank_ratio_0.5_.pt2", "m-int8-dynamic.pt"):
        content = (Path("dist") / name).read_bytes()
        line = f"dist/{name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"
        assert line in told.splitlines()
        sums[Path(name).suffix] = hashlib.sha256(content).hexdigest()
    (pytester.path / "budgets.yaml").write_text(budgets + CANDIDATES, encoding="utf-8")
    result = pytester.runpytest("--modelopt", "--modelopt-report", "modelopt-report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=8)
    cases = {case.recipe: case for case in read(pytester.path / "modelopt-report" / "record.json").cases}
    for recipe, candidate in RECIPES.items():
        assert cases[recipe].agreement == cases[candidate].agreement
        assert cases[recipe].drop == cases[candidate].drop
        ours, theirs = cases[recipe].variant, cases[candidate].variant
        assert ours is not None
        assert theirs is not None
        assert ours.shipped == ({f".{candidate}": sums[f".{candidate}"]} if ours.runtime else {})
        assert theirs.provenance is not None
        assert list(theirs.provenance.sums.values()) == ([] if candidate == "pt" else [sums[f".{candidate}"]])
        if candidate == "pt":  # the very module that was measured
            assert (ours.size_bytes, ours.memory_bytes) == (theirs.size_bytes, theirs.memory_bytes)
    _export_what_was_measured(pytester.path, capsys)


def _export_what_was_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record then knows the files, though torch runs them; what is made of other code or weights is not written."""
    record = folder / "modelopt-report" / "record.json"
    export = ["export", "m", "int8-dynamic", "--output", "released"]
    assert main(export) == 0
    released = folder / "released"
    sums = {file.suffix: hashlib.sha256(file.read_bytes()).hexdigest() for file in released.iterdir()}
    found = [case.variant.shipped for case in read(record).cases if case.recipe == "int8-dynamic" and case.variant]
    assert found == [sums]
    assert sums.keys() == {".pt", ".py"}
    assert "and the record has these sums now: modelopt-report/record.json" in capsys.readouterr().out.replace(
        "\n", " "
    )
    candidate = ["export", "m", "pt", "--record", str(record), "--output", "released"]
    assert main(candidate) == 0  # by what it holds: its factory names the files of another export
    sums = {file.suffix: hashlib.sha256(file.read_bytes()).hexdigest() for file in released.glob("m[-_]pt.*")}
    assert [case.variant.shipped for case in read(record).cases if case.recipe == "pt" and case.variant] == [sums]
    assert sums.keys() == {".pt", ".py"}
    assert "it is what was measured as m/pt, and the record" in capsys.readouterr().out.replace("\n", " ")
    other = ["export", "m", "bf16", "--record", str(record)]
    assert main(other) == 2
    assert "record.json has no figures of m/bf16: measure it with" in capsys.readouterr().err.replace("\n", " ")
    for name, (text, told) in OTHERS.items():
        before = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
        assert main([*export[:-1], "not-released"]) == 2
        assert told in capsys.readouterr().err
        (folder / name).write_text(before, encoding="utf-8")
    assert not list((folder / "not-released").iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["n", "bf16"], "has no model 'n'"),
        (["m", "bf61"], "unknown recipe 'bf61'; did you mean 'bf16'?"),
        (["m", "bf16", "--record", "none.json"], "none.json"),
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
