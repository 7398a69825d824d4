"""One more limit with a figure of its own: two files beside the worker's meter, and every other room knows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_modelopt

pytestmark = pytest.mark.e2e

KIND = '''
"""A limit on the bytes of the parameters alone."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_modelopt.limits.kind import ExactKind, Number
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.verdicts import Limit


@dataclass(frozen=True)
class MaxWeights(ExactKind):
    def figure_of(self, case: Case) -> Number | None:
        seen = case.variant.observations if case.variant else None
        return seen.parameter_bytes if seen else None

    def with_room(self, case: Case, limit: Limit, end: float, measured: float | None, headroom: float) -> float:
        return end * (1 + headroom)


LIMITS = (MaxWeights("max_weights", "max", "bytes", "memory", "The most bytes that the weights may have."),)
'''
MODELS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Linear(64, 1000).eval()

def data():
    inputs = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, net()(inputs).argmax(1)
"""
FIELD = """
    parameter_bytes: int | None = None
    training_modules: int | None = None
"""
METER = """
        "parameter_bytes": sum(each.numel() * each.element_size() for each in model.parameters()),
        "training_modules": """
WEIGHTS = 2 * (64 * 1000 + 1000)
"""In 16 bits."""
BUDGETS = """\
version: 1
defaults: {time_limit: 1 ms}
models:
  kept: {factory: "mine:net", data: "mine:data", recipes: {bf16: {max_weights: 1 MB}}}
  broken: {factory: "mine:net", data: "mine:data", recipes: {bf16: {max_weights: 100 kB}}}
"""
TEST = """
import pytest

@pytest.mark.model_budget(max_weights="130 kB")
def test_at_the_limit(modelopt):
    modelopt("mine:net", "bf16", data="mine:data")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project beside a copy of our package that has the limit."""
    copy = tmp_path / "ours" / "pytest_modelopt"
    shutil.copytree(Path(pytest_modelopt.__file__).parent, copy)
    (copy / "limits" / "weights.py").write_text(KIND, encoding="utf-8")
    _insert(copy / "results" / "observations.py", FIELD)
    _insert(copy / "measuring" / "worker" / "observe.py", METER)
    folder = tmp_path / "project"
    folder.mkdir()
    for name, content in (("mine.py", MODELS), ("budgets.yaml", BUDGETS), ("test_it.py", TEST)):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _insert(file: Path, lines: str) -> None:
    """Put the lines in the place of the last of them, which the file has once."""
    text, block = file.read_text(encoding="utf-8"), lines.removesuffix("\n")
    last = block[block.rindex("\n") :]
    assert text.count(last) == 1
    file.write_text(text.replace(last, block), encoding="utf-8")


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(project.parent / "ours"), str(project), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_every_room_knows_a_limit_that_stands_in_the_catalogue(project: Path) -> None:
    done = run(project, "pytest", "--modelopt", "--modelopt-report=report", "-p", "no:cacheprovider")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 passed, 1 failed" in done.stdout
    told = " ".join(done.stdout.split())
    assert (
        "broken/bf16: max_weights 100 kB is broken: 127 KiB measured, 30% more than the limit. (budgets.yaml:5)" in told
    )
    record = json.loads((project / "report" / "record.json").read_text(encoding="utf-8"))
    assert [case["variant"]["observations"]["parameter_bytes"] for case in record["cases"]] == 3 * [WEIGHTS]
    assert "max_weights" in (project / "report" / "summary.md").read_text(encoding="utf-8")

    command = ("pytest_modelopt.cli",)
    assert run(project, *command, "report", "report/record.json").returncode == 1
    updated = run(project, *command, "update", "report/record.json", "--loosen", "--headroom", "0%")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    texts = re.findall("max_weights: ([^}]+)}", (project / "budgets.yaml").read_text(encoding="utf-8"))
    assert texts == ["0.13 MB", "130 kB"]
    (project / "budgets.yaml").write_text(BUDGETS.replace("max_weights: 1 MB", "max_weight: 1 MB"), encoding="utf-8")
    refused = run(project, *command, "validate")
    assert refused.returncode == 2
    assert "unknown limit 'max_weight'; did you mean 'max_weights'?" in refused.stderr
    schema = run(project, "pytest_modelopt.config.schema")
    assert schema.returncode == 0, schema.stderr
    written = (project.parent / "ours" / "pytest_modelopt" / "config" / "schema.json").read_text(encoding="utf-8")
    assert "The most bytes that the weights may have." in written
