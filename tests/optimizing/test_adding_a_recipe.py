"""One more recipe is one file, and one more runtime one folder: no other file of ours is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_modelopt

RECIPE = '''
"""round-weights: weights rounded to a grid, in floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe

if TYPE_CHECKING:
    from torch import nn


class RoundWeights(Recipe):
    recipe_name: ClassVar[str] = "round-weights"
    summary: ClassVar[str] = "weights on a grid of 1/64"

    def apply(self, model: nn.Module, context: Context) -> Applied:
        for parameter in model.parameters():
            parameter.data = (parameter.data * 64).round() / 64
        return Applied(model)
'''
RUNTIME = '''
"""NumPy, for files of one linear layer."""

from pytest_modelopt.optimizing.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="NumPy",
    extra=None,
    objects=(),
    suffix=".npz",
    file_module="npz_file_module",
    packages=("numpy",),
    frames=("numpy",),
)
'''
FILE = '''
"""A `.npz` file of one linear layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy
import torch

from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile


class File(ProgramFile):
    runtime: ClassVar[str] = "NumPy"

    def start(self, threads: int) -> Any:
        with numpy.load(self.file, allow_pickle=False) as arrays:
            return dict(arrays)

    def ports(self, engine: Any) -> list[Port]:
        return [Port("x", torch.float32, (None, engine["weight"].shape[1]))]

    def output_names(self, engine: Any) -> list[str]:
        return ["y"]

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.from_numpy(inputs[0].numpy() @ engine["weight"].T + engine["bias"])]
'''
MODELS = """
import numpy
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Linear(64, 10).eval()

def data():
    inputs = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, net()(inputs).argmax(1)

if __name__ == "__main__":
    numpy.savez("net.npz", **{name: each.detach().numpy() for name, each in net().named_parameters()})
"""
BUDGETS = """\
version: 1
defaults: {time_limit: 1 ms}
models:
  net:
    factory: "mine:net"
    data: "mine:data"
    budget: {max_accuracy_drop: 10 pp}
    recipes: {round-weights: {}}
    candidates: {file: {file: net.npz}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project beside a copy of our package that has both."""
    copy = tmp_path / "ours" / "pytest_modelopt"
    shutil.copytree(Path(pytest_modelopt.__file__).parent, copy)
    (copy / "optimizing" / "quantization" / "round_weights.py").write_text(RECIPE, encoding="utf-8")
    runtime = copy / "optimizing" / "runtimes" / "numpy_linear"
    runtime.mkdir()
    (runtime / "__init__.py").write_text(RUNTIME, encoding="utf-8")
    (runtime / "npz_file_module.py").write_text(FILE, encoding="utf-8")
    folder = tmp_path / "project"
    folder.mkdir()
    for name, content in (("mine.py", MODELS), ("budgets.yaml", BUDGETS)):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(project.parent / "ours"), str(project), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_a_recipe_is_one_file_and_a_runtime_one_folder(project: Path) -> None:
    assert run(project, "mine.py").returncode == 0
    done = run(project, "-m", "pytest", "--modelopt", "--modelopt-report=report", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    record = json.loads((project / "report" / "record.json").read_text(encoding="utf-8"))
    rounded, from_file = (case["variant"] for case in record["cases"])
    assert rounded["recipe"] == "round-weights"
    assert from_file["provenance"]["made_by"] == "NumPy"
    assert from_file["size_bytes"] == (project / "net.npz").stat().st_size
    assert from_file["score"] == 1.0
    assert "numpy" in record["environment"]["packages"]
