"""The sum of what a variant holds: the same in every process, another one wherever a weight or a setting is another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.worker.files import content_digest as of_content
from pytest_modelopt.measuring.worker.files.content_digest import content_digest
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(288, 64), nn.Linear(64, 10)
        for name in ("one", "two", "three"):  # in a set of the module, whose order is another in each process
            self.register_buffer(name, torch.ones(2), persistent=False)
        self.activations = (torch.relu, torch.nn.functional.gelu)  # the text of which has an address
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.activations[0](self.convolution(x) * self.scale).flatten(1)
        return self.last(self.activations[1](self.first(hidden)))


def reader() -> Reader:
    torch.manual_seed(0)
    return Reader().eval()


def variant(recipe: str) -> Any:
    return optimize(reader(), parse(recipe).steps, Context(X, lambda: iter([X]), seed=0)).model


RECIPES = ("int8-dynamic", "int8-weight-only", "bf16")


def test_it_is_the_same_in_every_process() -> None:
    code = f"from {__name__} import *\nprint(*(content_digest(variant(each)) for each in RECIPES))"
    seed = str(1 + (os.environ.get("PYTHONHASHSEED") == "1"))
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == [content_digest(variant(each)) for each in RECIPES]
    assert len(set(done.stdout.split())) == len(RECIPES)


def _packed(model: Any) -> None:
    weight, bias = model.last.weight(), model.last.bias()
    whole = weight.int_repr()
    whole[3, 5] += 1
    changed = torch._make_per_tensor_quantized_tensor(whole, weight.q_scale(), weight.q_zero_point())
    model.last.set_weight_bias(changed, bias)


def _plain(model: Any) -> None:
    model.model.last.weight.view(torch.uint8)[3, 5] += 1


def _scale(model: Any) -> None:
    model.scale = 1.5


@pytest.mark.parametrize(
    ("recipe", "damage"),
    [
        ("int8-dynamic", _packed),
        ("bf16", _plain),
        ("int8-dynamic", _scale),
    ],
)
@torch.no_grad()
def test_one_number_that_is_another_makes_it_another(recipe: str, damage: Callable[[Any], None]) -> None:
    model = variant(recipe)
    before = content_digest(model)
    assert before == content_digest(model) is not None
    damage(model)
    assert content_digest(model) != before


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_script_has_one() -> None:
    scripted = [torch.jit.script(nn.Sequential(nn.Linear(4, 4))) for _ in range(2)]
    assert content_digest(scripted[0]) != content_digest(scripted[1])
    assert content_digest(scripted[0]) == content_digest(scripted[0])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@torch.no_grad()
def test_a_sparse_weight_counts_by_what_is_saved_of_it() -> None:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(model.weight.to_sparse_csr(), requires_grad=False)
    before = content_digest(model)
    model.weight.values()[7] += 1
    assert None is not content_digest(model) != before


@torch.no_grad()
def test_of_a_large_model_every_kth_mib_and_the_last_one_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 MiB in two tensors where 4 are read: of every 3 MiB the first, and of each tensor the last one."""
    model = nn.ParameterList([torch.zeros(8, 2**18), torch.zeros(2**18 * 4)])
    monkeypatch.setattr(of_content, "MOST_BYTES", 4 * 2**20)
    before = content_digest(model)
    seen = []
    for tensor in model:
        for mib in range(tensor.nbytes // 2**20):
            for place in (mib * 2**18, (mib + 1) * 2**18 - 1):
                tensor.view(-1)[place] = 1
                seen.append((mib, content_digest(model) != before))
                tensor.view(-1)[place] = 0
    assert [mib for mib, changed in seen[:16] if changed] == [0, 0, 3, 3, 6, 6, 7, 7]
    assert [mib for mib, changed in seen[16:] if changed] == [0, 0, 3, 3]
    assert content_digest(model) == before
    monkeypatch.setattr(of_content, "MOST_BYTES", 12 * 2**20)
    assert content_digest(model) != before
