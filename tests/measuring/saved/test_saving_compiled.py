"""Compiled functions and exported programs: pickle has no form for them, and what is measured is saved and loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.carried_objects import carry
from pytest_modelopt.measuring.worker.files.size import load, save, saved_bytes, what_is_not_saved

COMPILED: list[int] = []


def counting(graph: Any, inputs: Any) -> Any:
    """A backend of torch.compile that costs nothing and tells that it was asked."""
    COMPILED.append(len(inputs))
    return graph.forward


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


class OfAMethod(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.forward = torch.compile(self._plain, backend=counting)  # type: ignore[method-assign]

    def _plain(self, x: torch.Tensor) -> Any:
        return self.layer(x)


class OfItself(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.forward = torch.compile(self.forward, backend=counting)  # type: ignore[method-assign]


class OfAFunction(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.doubled = torch.compile(lambda x: x * 2, backend=counting)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(self.doubled(x))


class Wrapped(nn.Module):
    """An exported program as a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = exported()

    def forward(self, x: torch.Tensor) -> Any:
        return self.part(x)


def whole() -> Any:
    return torch.compile(Plain(), backend=counting)


def exported() -> nn.Module:
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Plain().eval(), (torch.randn(4, 32),), dynamic_shapes=({0: batch},))
    return program.module()


@pytest.mark.parametrize("make", [OfAMethod, OfItself, OfAFunction, whole, exported, Wrapped])
def test_it_is_saved_as_large_as_what_was_compiled_and_loaded_compiled(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(8, 32)
    save(model, tmp_path / "model.pt")
    carry({"model": model}, tmp_path / "carried.pt")
    assert 0 <= saved_bytes(model) - saved_bytes(Plain()) < 5 * 1024
    for loaded in (load(tmp_path / "model.pt"), load(tmp_path / "carried.pt")["model"]):
        COMPILED.clear()
        torch.testing.assert_close(loaded(x), model(x))
        COMPILED.clear()
        torch._dynamo.reset()
        loaded(x)
        assert bool(COMPILED) is (make not in (exported, Wrapped))
        with pytest.raises(Exception, match=r"batch|size|shape"):
            loaded(torch.randn(8, 31))


def test_settings_of_the_compiler_are_those_that_were_given(tmp_path: Path) -> None:
    model = Plain()
    model.forward = torch.compile(breaking, backend=counting, fullgraph=True)  # type: ignore[method-assign]
    save(model, tmp_path / "model.pt")
    with pytest.raises(torch._dynamo.exc.Unsupported):
        load(tmp_path / "model.pt")(torch.ones(2))


def breaking(x: torch.Tensor) -> torch.Tensor:
    torch._dynamo.graph_break()
    return x + 1


def test_an_exported_program_stays_one(tmp_path: Path) -> None:
    """Recipes know it by the methods that refuse."""
    save(exported(), tmp_path / "model.pt")
    with pytest.raises(NotImplementedError):
        load(tmp_path / "model.pt").eval()


def test_what_cannot_be_saved_is_named() -> None:
    model: Any = nn.Sequential(Plain())
    model[0].lock = threading.Lock()
    told = what_is_not_saved(model)
    assert "its `0.lock` (a lock) has no form that could be saved" in told
    assert "__getstate__" in told
