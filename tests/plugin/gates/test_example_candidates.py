"""The candidates that example_project ships keep their budgets, and break them once their weights are damaged."""

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


@pytest.mark.slow
def test_whole_weights_keep_the_budgets_of_the_example_and_damaged_ones_break_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(pytester.path)
    copy, whole = (pytester.path / name for name in ("example_project", "whole"))
    for part in ("__init__.py", "vision.py", "data/digits.pt", "weights"):
        for folder in (copy, whole):
            source, target = ROOT / "example_project" / part, folder / part
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
    damaged = {
        name: {key: stated[key] for key in ("factory", "file") if key in stated} for name, stated in candidates.items()
    }
    for stated in candidates.values():
        stated.pop("min_speedup", None)  # time is not what is asked here
        stated |= {key: stated[key].replace("example_project", "whole") for key in ("factory", "file") if key in stated}
    model["candidates"] = damaged | {f"whole-{name}": stated for name, stated in candidates.items()}
    kept = {key: model[key] for key in ("factory", "data", "budget", "candidates")}
    budgets = {"version": 1, "models": {"digits-vit": kept}}
    (pytester.path / "budgets.yaml").write_text(yaml.safe_dump(budgets), encoding="utf-8")
    arguments = ("--modelopt", "--modelopt-time-limit", "1 ms", "--modelopt-report", "report", "-p", "no:cacheprovider")
    pytester.runpytest(*arguments).assert_outcomes(passed=3, failed=3)
    cases = {case.recipe: case for case in read(pytester.path / "report" / "record.json").cases}
    for name, stated in candidates.items():
        assert [verdict.outcome for verdict in cases[name].verdicts] == ["fail"], name
        limits = {"max_accuracy_drop", *(key for key in stated if key.startswith("max_"))}
        kept = {verdict.limit.name: verdict.outcome for verdict in cases[f"whole-{name}"].verdicts}
        assert kept == dict.fromkeys(limits, "pass"), name
