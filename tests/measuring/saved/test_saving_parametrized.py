"""Layers with parametrized weights: torch refuses to save them, and what is measured is saved and loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_leaves

from pytest_modelopt.measuring.carried_objects import carry
from pytest_modelopt.measuring.worker.files.size import load, save, saved_bytes

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
    "Conv1d": lambda: parametrizations.spectral_norm(nn.Conv1d(8, 8, 1)),
    "LSTM": lambda: parametrizations.weight_norm(nn.LSTM(8, 8), "weight_hh_l0"),
    "GRU": lambda: parametrizations.spectral_norm(
        parametrizations.weight_norm(nn.GRU(8, 8), "weight_hh_l0"), "weight_ih_l0"
    ),
}


@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk:UserWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_a_parametrized_layer_is_loaded_as_it_was(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[kind]()).eval()
    x = torch.randn(8, 8)
    save(model, tmp_path / "model.pt")
    carry({"model": model}, tmp_path / "carried.pt")
    for loaded in (load(tmp_path / "model.pt"), load(tmp_path / "carried.pt")["model"]):
        for one, other in zip(answers(loaded, x), answers(model, x), strict=True):
            assert torch.equal(one, other)
        assert set(loaded.state_dict()) == set(model.state_dict())
        assert saved_bytes(loaded) == saved_bytes(model)
        name = next(iter(loaded[0].parametrizations))
        parametrize.remove_parametrizations(loaded[0], name)
        assert name in dict(loaded[0].named_parameters())


def answers(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return tree_leaves(model(x))
