"""low-rank: the rank by energy and by a budget in bytes, against decompositions and counts made here."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.factorization.low_rank import Spectrum, ranks_within
from pytest_modelopt.optimizing.recipe import RecipeError
from tests.optimizing.recipe_models import KINDS, TRAPS, apply, make, outputs, run, saved_and_loaded

FLOAT32 = 4


def decaying(outputs: int, inputs: int, decay: float, bias: bool = True) -> nn.Linear:
    """A layer whose singular values are decay**0, decay**1, ..."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    left, _ = torch.linalg.qr(torch.randn(outputs, outputs, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(inputs, inputs, dtype=torch.float64))
    count = min(inputs, outputs)
    values = decay ** torch.arange(count, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(left[:, :count] * values @ right[:, :count].t())
    return linear


def rank(pair: nn.Module) -> int:
    assert isinstance(pair, nn.Sequential)
    first = pair[0]
    assert isinstance(first, nn.Linear)
    return first.out_features


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_energy_takes_the_smallest_rank_that_keeps_it(energy: float) -> None:
    torch.manual_seed(0)
    decay = 0.9
    model = nn.Sequential(decaying(80, 96, decay))
    apply(f"low-rank(energy={energy})", model, torch.randn(2, 96))
    # the share that r values of a geometric series keep of n: (1 - q^2r) / (1 - q^2n)
    kept = [(1 - decay ** (2 * r)) / (1 - decay ** (2 * 80)) for r in range(81)]
    assert kept[rank(model[0])] >= energy > kept[rank(model[0]) - 1]


def test_energy_is_what_the_factors_keep_of_the_weight() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(128, 128))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(128, 40) @ torch.randn(40, 128))
    weight = model[0].weight.detach().double().clone()
    notes = apply("low-rank(energy=0.8)", model, torch.randn(2, 128)).notes
    product = model[0][1].weight.detach().double() @ model[0][0].weight.detach().double()
    lost = float((weight - product).square().sum() / weight.square().sum())
    assert 0.8 <= 1 - lost < 0.83
    assert f"keep {1 - lost:.1%} at the least" in notes[0]


def test_layers_that_would_grow_are_left_and_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(decaying(96, 96, 0.7), nn.Linear(96, 96), nn.Linear(96, 10))
    notes = apply("low-rank(energy=0.9)", model, torch.randn(2, 96)).notes
    assert (type(model[1]), type(model[2])) == (nn.Linear, nn.Linear)
    assert "1 Linear (36.4 KiB) left as they are: two layers that keep 90.0% of their squared singular" in notes[2]
    assert "1 Linear (3.79 KiB) left as they are: fewer than 4096 weights" in notes[1]


@pytest.mark.parametrize("budget", [8_000, 20_000, 40_001])
def test_bytes_are_kept_to_and_used_up(budget: int) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(decaying(64, 96, 0.98), decaying(96, 64, 0.9))
    spectra = [torch.linalg.svdvals(layer.weight.detach().double()).square() for layer in model]
    shapes = [tuple(layer.weight.shape) for layer in model]
    optimization = apply(f"low-rank(bytes={budget})", model, torch.randn(2, 96))
    taken = sum(parameter.nbytes for parameter in optimization.model.parameters())
    ranks = [rank(pair) for pair in model]
    by_hand = sum(r * (out + inputs) * FLOAT32 for r, (out, inputs) in zip(ranks, shapes, strict=True))
    assert taken == by_hand + (64 + 96) * FLOAT32 <= budget
    assert f"into {taken:,} of at most {budget:,} bytes" in optimization.notes[0]
    largest = [(out * inputs - 1) // (out + inputs) for out, inputs in shapes]
    for r, most, (out, inputs) in zip(ranks, largest, shapes, strict=True):
        assert r == most or budget - taken < (out + inputs) * FLOAT32
    assert (
        _kept(spectra, ranks)
        >= max(
            _kept(spectra, other)
            for other in itertools.product(*(range(1, most + 1) for most in largest))
            if sum(r * sum(shape) * FLOAT32 for r, shape in zip(other, shapes, strict=True)) <= by_hand
        )
        - 1e-9
    )


def _kept(spectra: list[torch.Tensor], ranks: tuple[int, ...] | list[int]) -> float:
    return sum(float(values[:r].sum() / values.sum()) for values, r in zip(spectra, ranks, strict=True))


def test_each_rank_goes_where_it_keeps_most_per_byte() -> None:
    first = Spectrum([0.5, 0.3, 0.2], bytes_per_rank=10, bias_bytes=4, largest_rank=3)
    second = Spectrum([0.4, 0.35, 0.25], bytes_per_rank=5, bias_bytes=0, largest_rank=3)
    assert ranks_within(19, [first, second]) == [1, 1]
    assert ranks_within(24, [first, second]) == [1, 2]  # 0.35 / 5 before 0.3 / 10
    assert ranks_within(29, [first, second]) == [1, 3]  # 0.25 / 5, too
    assert ranks_within(38, [first, second]) == [1, 3]  # nothing more fits
    assert ranks_within(39, [first, second]) == [2, 3]
    assert ranks_within(10_000, [first, second]) == [3, 3]
    with pytest.raises(RecipeError, match=r"low-rank\(bytes=18\): the 2 Linear to factorize take 19 B \(19 bytes\) at"):
        ranks_within(18, [first, second])


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("low-rank", "low-rank(ratio=0.5)"),
        ("low-rank(ratio=0.5)", "low-rank(ratio=0.5)"),
        ("low-rank(energy=0.9)", "low-rank(energy=0.9)"),
        ("low-rank(bytes=100000)", "low-rank(bytes=100000)"),
    ],
)
def test_only_what_is_in_force_is_spelled(text: str, spelling: str) -> None:
    assert parse(text).text == spelling
    assert parse(spelling) == parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "low-rank(ratio=0.5, energy=0.9)",
            "low-rank: the rank follows from one of ratio, energy and bytes; keep one of ratio=0.5, energy=0.9",
        ),
        ("low-rank(energy=0.9, bytes=5)", "keep one of energy=0.9, bytes=5"),
        ("low-rank(energy=1)", "energy of low-rank must be a number between 0 and 1, both excluded, not 1"),
        ("low-rank(bytes=0)", "bytes of low-rank must be a whole number of at least 1, not 0"),
        ("low-rank(bytes=1.5)", "bytes of low-rank must be a whole number of at least 1, not 1.5"),
        (
            "low-rank(rank=3)",
            "low-rank has no parameter 'rank'; low-rank takes ratio, energy, bytes",
        ),
    ],
)
def test_mistakes_are_told(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse(text)
    assert told in str(error.value)


@pytest.mark.parametrize("kind", [*KINDS, *TRAPS])
def test_every_kind_of_model(kind: str) -> None:
    model, inputs = make(kind)
    original = outputs(run(model, inputs))
    if kind == "cnn":
        with pytest.raises(RecipeDidNothing):
            apply("low-rank(energy=0.7)", model, inputs)
        return
    variant = apply("low-rank(energy=0.7)", model, inputs).model
    answers = outputs(run(variant, inputs))
    assert [answer.shape for answer in answers] == [answer.shape for answer in original]
    reloaded = outputs(run(saved_and_loaded(variant), inputs))
    assert all(torch.equal(one, other) for one, other in zip(answers, reloaded, strict=True))
