"""sparse-2:4: the pattern, by hand, and the reasons for which machines and layers are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.pruning.sparse_2_4 import SemiStructuredSparsity, reason_to_keep, two_of_four
from pytest_modelopt.optimizing.recipe import Context, RecipeError
from tests.optimizing.recipe_models import apply, make

LINEAR = nn.Linear(64, 32).half()


def test_the_two_of_largest_magnitude_of_four_stay() -> None:
    weight = torch.tensor([[1.0, -4, 2, 3, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, -1, -7, 6, 5, -8]])
    expected = torch.tensor([[0.0, -4, 0, 3, 0.5, 0.5, 0, 0], [0, 0, 0, -1, -7, 0, 0, -8]])
    assert torch.equal(two_of_four(weight), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_other_choice_keeps_more_of_the_weight(dtype: torch.dtype) -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    pruned = two_of_four(weight)
    fours, kept = weight.view(32, 16, 4).float().square(), pruned.view(32, 16, 4)
    assert torch.equal((kept != 0).sum(-1), torch.full((32, 16), 2))
    best = fours.sort(-1).values[..., 2:].sum()
    assert torch.allclose(kept.float().square().sum(), best)
    assert bool(((pruned == weight) | (pruned == 0)).all())


def test_the_cpu_is_refused_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(RecipeError) as error:
        apply("sparse-2:4", *make("mlp"))
    assert str(error.value) == (
        "sparse-2:4 makes variants that run on cuda only, not on cpu: only tensor cores skip zeros of this pattern; on "
        "the CPU, write `prune-unstructured(ratio=0.9) + sparse-csr`"
    )


def test_an_old_or_absent_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert SemiStructuredSparsity.unfit("cuda") == "sparse-2:4 needs an NVIDIA GPU, and torch finds none"
    model, inputs = make("mlp")
    with pytest.raises(RecipeError, match="torch finds none"):
        optimize(model, parse("sparse-2:4").steps, Context(inputs, None, seed=0, device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    told = SemiStructuredSparsity.unfit("cuda")
    assert told == ("sparse-2:4 needs an NVIDIA GPU of compute capability 8.0 or more (Ampere), and Tesla T4 has 7.5")
    for capability in ((8, 0), (9, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda capability=capability: capability)
        assert SemiStructuredSparsity.unfit("cuda") == ""


@pytest.mark.parametrize(
    ("layer", "tied", "told"),
    [
        (LINEAR, set(), ""),
        (nn.Linear(64, 32), set(), "the kernels take half precision, and they are float32: call .half()"),
        (nn.Linear(60, 32).half(), set(), "the kernels take outputs in multiples of 32 and inputs in multiples of 64"),
        (nn.Linear(64, 10).half(), set(), "the kernels take outputs in multiples of 32 and inputs in multiples of 64"),
        (LINEAR, {id(LINEAR.weight)}, "another module shares their weight"),
        (nn.MultiheadAttention(64, 4).half().out_proj, set(), "not exactly nn.Linear"),
    ],
)
def test_layers_that_cannot_take_the_form_are_told(layer: nn.Linear, tied: set[int], told: str) -> None:
    reason = reason_to_keep(layer, tied)
    assert reason.startswith(told)
    assert bool(reason) == bool(told)


def test_it_follows_a_cast_and_is_for_the_end() -> None:
    assert [recipe.canonical() for recipe in parse("prune-structured + sparse-2:4").steps] == [
        "prune-structured(ratio=0.3)",
        "sparse-2:4",
    ]
    assert "low precision" in SemiStructuredSparsity.takes
    with pytest.raises(RecipeError, match=r"sparse-2:4 stores the weights as sparse matrices.*write low-rank \+"):
        parse("sparse-2:4 + low-rank")
