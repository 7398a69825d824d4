"""Copies of inputs in memory of their own: what shares memory shares it as before, and nothing else is copied along."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from pytest_modelopt.optimizing.modules.nested_values import cut, joined, tensors
from pytest_modelopt.optimizing.modules.own_memory import in_own_memory, joined_in_own_memory

VIEWS = (
    lambda x: x,
    lambda x: x[:, :5],
    lambda x: x[:, 3:],
    lambda x: x[:, ::2],
    lambda x: x.t(),
    lambda x: x[2:4],
    lambda x: x[0].expand(3, -1),
    lambda x: x.view(torch.int32),
)


def write(inputs: Any, order: list[int]) -> list[torch.Tensor]:
    """Write into one tensor after the other, each time another number."""
    found = tensors(inputs)
    for number, place in enumerate(order, 1):
        found[place][..., :1].fill_(number)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_write_shows_where_it_showed_before(seed: int) -> None:
    chance = random.Random(seed)
    bases = [torch.arange(48, dtype=torch.float32).reshape(6, 8) + 100 * number for number in range(2)]
    inputs = {f"{n}": [chance.choice(VIEWS)(chance.choice(bases))] for n in range(4)}
    copies = in_own_memory(inputs)
    order = [n for n in range(4) if 0 not in tensors(inputs)[n].stride()]
    expected = [tensor.clone() for tensor in tensors(inputs)]
    assert all(map(torch.equal, tensors(copies), expected))
    written = [tensor.clone() for tensor in write(copies, order)]
    assert all(map(torch.equal, tensors(inputs), expected)), "the copies have memory of their own"
    assert all(map(torch.equal, written, write(inputs, order)))


def test_a_view_is_copied_without_the_rest() -> None:
    large = torch.zeros(1000, 1000)
    (part,) = tensors(in_own_memory(large[:2, :3]))
    one, other = in_own_memory((large[:2], large[1:3]))
    assert part.untyped_storage().nbytes() == 2 * 3 * 4
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    assert one.untyped_storage().nbytes() == 3 * 1000 * 4


def test_arrays_that_overlap_are_copied_each() -> None:
    array = np.arange(8.0)
    one, other = in_own_memory((torch.from_numpy(array[:6]), torch.from_numpy(array[2:])))
    assert torch.equal(one, torch.arange(6.0, dtype=torch.float64))
    assert torch.equal(other, torch.arange(2.0, 8.0, dtype=torch.float64))


def test_one_tensor_in_two_places_is_one_in_examples_that_are_put_together() -> None:
    x = torch.arange(24.0).reshape(6, 4)
    rows = [cut((x, {"again": x, "other": x + 1}), slice(row, row + 1)) for row in (0, 3)]
    for batch in (joined(rows), joined_in_own_memory(rows[:1])):
        batch[0].zero_()
        assert not batch[1]["again"].any()
        assert batch[1]["other"].all()
    assert x[0, 1] == 1
