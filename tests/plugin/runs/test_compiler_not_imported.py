"""torch's compiler takes as long to import as all the rest of torch: only what works with it imports it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from pytest_modelopt.measuring.controller import preloading
from pytest_modelopt.optimizing.registry import BUILT_IN
from tests.plugin.small_project import one_case

STRICT = """
import sys
from shop import *

class Strict(nn.Sequential):
    def forward(self, x):
        assert "torch._dynamo" not in sys.modules, "this process has imported the compiler"
        return super().forward(x)

def strict():
    return Strict(*classifier()).eval()

def imports_it():
    import torch._dynamo
    return classifier()
"""
PROGRAM = """
import os
import sys
import traceback
import torch
from torch import nn
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context, RecipeError

def optimized_by(name):
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 32))
    made = nn.Sequential(*layers).eval()
    with torch.no_grad():
        made[-1].weight[:, ::8] = 0
    try:
        done = optimize(made, parse(name).steps, Context(torch.randn(2, 3, 8, 8), None, 0))
        with torch.no_grad():
            done.model(torch.randn(2, 3, 8, 8))
    except RecipeError as error:
        print(error)
    assert "torch._dynamo" not in sys.modules

torch.set_num_threads(1)  # a child has none of its parent's threads
for name in sys.argv[1:]:
    child = os.fork()  # each recipe in a process of its own, and torch is imported once
    if not child:
        try:
            optimized_by(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert not os.waitpid(child, 0)[1], name
"""


def test_no_process_of_a_gate_does(project: Callable[..., pytest.Pytester]) -> None:
    """Neither those of the original and the variant nor the fresh ones that load what was saved."""
    pytester = project(one_case("{max_memory: 1 MB}", factory="strict:strict"))
    pytester.makepyfile(strict=STRICT)
    pytester.runpytest_subprocess("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_what_a_project_imports_itself_is_imported_once(
    project: Callable[..., pytest.Pytester], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preloading, "PRELOAD", [name for name in preloading.PRELOAD if name != preloading.COMPILER])
    pytester = project(one_case("{max_memory: 1 MB}", factory="strict:imports_it"))
    pytester.makepyfile(strict=STRICT)
    pytester.runpytest("--modelopt", "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert preloading.COMPILER in preloading.PRELOAD


def test_no_recipe_does_that_does_not_say_so() -> None:
    names = [recipe.recipe_name for recipe in BUILT_IN if not recipe.imports_compiler]
    subprocess.run([sys.executable, "-c", PROGRAM, *names], check=True)
