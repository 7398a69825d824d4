"""The candidates that example_project ships break their budgets once their weights are damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch
import torchao.quantization  # noqa: F401 -- makes its tensors known to torch.load
import yaml
from onnx import numpy_helper

from example_project import vision
from pytest_modelopt.results.json import read

ROOT = Path(vision.__file__).parent.parent


def damage_student(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    state["encoder.layers.0.linear1.weight"] = -state["encoder.layers.0.linear1.weight"]
    torch.save(state, file)


def damage_quantized(file: Path) -> None:
    """The numbers of 2 bits of one layer, in another order."""
    state = torch.load(file, weights_only=True)
    weight = state["encoder.layers.0.linear1.weight"]
    weight.qdata.copy_(weight.qdata.flip(1))
    torch.save(state, file)


def damage_program(file: Path) -> None:
    program = onnx.load(file)
    largest = max(program.graph.initializer, key=lambda each: len(each.raw_data))
    largest.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(largest), largest.name))
    onnx.save(program, file)


def test_damaged_weights_break_the_budgets_of_the_example(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(pytester.path)
    copy = pytester.path / "example_project"
    for part in ("__init__.py", "vision.py", "data/digits.pt", "weights"):
        source, target = ROOT / "example_project" / part, copy / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    damage_student(copy / "weights" / vision.STUDENT_PATH.name)
    damage_quantized(copy / "weights" / vision.QUANTIZED_PATH.name)
    damage_program(copy / "weights" / vision.ONNX_PATH.name)
    budgets = yaml.safe_load((ROOT / "budgets.yaml").read_text(encoding="utf-8"))
    model = budgets["models"]["digits-vit"]
    candidates = model["candidates"]
    assert set(candidates) == {"student", "quantized", "onnx"}
    model["budget"] = {"max_accuracy_drop": model["budget"]["max_accuracy_drop"]}
    model["candidates"] = {
        name: {key: stated[key] for key in ("factory", "file") if key in stated} for name, stated in candidates.items()
    }
    kept = {key: model[key] for key in ("factory", "data", "budget", "candidates")}
    stated = {"version": 1, "models": {"digits-vit": kept}}
    (pytester.path / "budgets.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    arguments = ("--modelopt", "--modelopt-time-limit", "1 ms", "--modelopt-report", "report", "-p", "no:cacheprovider")
    pytester.runpytest(*arguments).assert_outcomes(failed=3)
    cases = {case.recipe: case for case in read(pytester.path / "report" / "record.json").cases}
    for name in candidates:
        assert [verdict.outcome for verdict in cases[name].verdicts] == ["fail"], name
