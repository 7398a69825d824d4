"""A gate from whose control group memory is taken away: what no longer fits is an error with the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt import system
from pytest_modelopt.results.json import read

Project = Callable[..., pytest.Pytester]

MODELS = """
import torch
from pathlib import Path
from torch import nn

GROUPS = Path({groups!r})

def limit(left):
    for folder, limit, used in ((GROUPS, "max", "current"), (GROUPS / "memory", "limit_in_bytes", "usage_in_bytes")):
        folder.mkdir(exist_ok=True)
        (folder / f"memory.{{limit}}").write_text(str(2**30))
        (folder / f"memory.{{used}}").write_text(str(2**30 - left))

def large():
    model = nn.Linear(6144, 6144, bias=False)
    model.weight.data = torch.full((6144, 6144), 0.5)
    return model.eval()

def large_again():
    return large()

def small():
    return nn.Linear(6144, 2).eval()

def data():
    return torch.ones(4, 6144), torch.zeros(4, dtype=torch.long)

def takes_memory_away(outputs, targets):
    limit(left=0)
    return 1.0

takes_memory_away.higher_is_better = True
"""
BUDGETS = """version: 1
x-recipes: &recipes {int8-dynamic: {max_size: 1 GB}}
defaults: {metric: many:takes_memory_away}
models:
  first: {factory: many:large, data: many:data, recipes: *recipes}
  second: {factory: many:large_again, data: many:data, recipes: *recipes}
  program: {file: program.onnx, data: many:data, original: {max_size: 1 GB}}
  small: {factory: many:small, data: many:data, recipes: *recipes}
"""


def test_what_no_longer_fits_is_refused_and_the_rest_is_measured(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester = project(BUDGETS)
    pytester.makepyfile(many=MODELS.format(groups=str(tmp_path)))
    with (pytester.path / "program.onnx").open("wb") as sparse:
        sparse.truncate(144 * 2**20)
    monkeypatch.setattr(system, "CGROUPS", tmp_path)
    pytester.runpytest("--modelopt", "--modelopt-report", "report").assert_outcomes(passed=1, failed=3)
    first, second, program, small = read(pytester.path / "report" / "record.json").cases
    left = (
        "the second 144 MiB are still needed, and 0 B are available (of the 1 GiB of its control group): give the job"
    )
    assert first.error is not None
    assert first.error.message.startswith(
        "the int8-dynamic starts from the original, which its own worker holds meanwhile: 2 x 144 MiB "
        f"= 288 MiB at the least; {left}"
    )
    assert second.error is not None
    assert second.error.message.startswith(
        "the original cannot be measured: the original does not fit twice: its worker holds it, and a fresh process "
        f"that loads what was saved holds it again, 2 x 144 MiB = 288 MiB at the least; {left}"
    )
    assert program.error is not None
    assert program.error.message.startswith(
        "program.onnx has 144 MiB, which its worker holds at the least, and 0 B are available (of the 1 GiB of its"
    )
    assert small.error is None
