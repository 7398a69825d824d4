"""int8 for nn.EmbeddingBag: torch's packed one for sums, rows with a scale each for every other way of adding up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.optimizing.recipe_models import apply

IDS = torch.randint(0, 200, (31,), generator=torch.Generator().manual_seed(0))
OFFSETS = torch.tensor([0, 4, 4, 17])
WEIGHTS = torch.rand(31, generator=torch.Generator().manual_seed(1))


class Bag(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(200, 48, **settings)

    def forward(self, *inputs: Any) -> Any:
        return self.bag(*inputs)


def bag(**settings: Any) -> Bag:
    torch.manual_seed(0)
    return Bag(**settings).eval()


def close(model: Any, original: nn.Module, inputs: tuple[Any, ...]) -> None:
    with torch.no_grad():
        expected, found = original(*inputs), model(*inputs)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 0.02 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        ({"mode": "sum"}, (IDS, OFFSETS)),
        ({"mode": "sum"}, (IDS.reshape(1, -1),)),
        ({"mode": "sum", "include_last_offset": True}, (IDS, torch.cat([OFFSETS, torch.tensor([31])]))),
        ({"mode": "sum"}, (IDS, OFFSETS, WEIGHTS)),
        ({"mode": "mean"}, (IDS, OFFSETS)),
        ({"mode": "max"}, (IDS, OFFSETS)),
        ({"mode": "mean", "padding_idx": int(IDS[2])}, (IDS, OFFSETS)),
    ],
)
def test_rows_of_int8_add_up_as_those_of_float32(settings: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    original = bag(**settings)
    done = apply("int8-weight-only", bag(**settings), inputs)
    assert type(done.model.get_submodule("bag")).__name__ == "Int8EmbeddingBag"
    assert done.coverage.share == 1.0
    close(done.model, original, inputs)


@pytest.mark.parametrize("inputs", [(IDS, OFFSETS), (IDS, OFFSETS, WEIGHTS)], ids=["plain", "weighted"])
def test_sums_are_packed_by_torch(inputs: tuple[Any, ...]) -> None:
    done = apply("int8-dynamic", bag(mode="sum"), inputs)
    assert "quantized" in type(done.model.get_submodule("bag")).__module__
    assert done.coverage.share == 1.0
    close(done.model, bag(mode="sum"), inputs)


@pytest.mark.parametrize("settings", [{"mode": "mean"}, {"mode": "sum", "padding_idx": 0}])
def test_what_torch_would_add_up_otherwise_is_left_as_it_is(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="torch's packed EmbeddingBag sums rows and knows no padding_idx"):
        apply("int8-dynamic", bag(**settings), (IDS, OFFSETS))
