"""Models that a converter refuses, or that one must: with inputs, and what LiteRT's recipes say of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pytest_modelopt.optimizing.calling import Inputs


class Returns(nn.Module):
    """Returns what `make` makes of the hidden numbers and the inputs."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(self.hidden(x), x)


class States(nn.Module):
    """Returns the recurrent states too, whose first dimension counts layers: one, as many as there are examples."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.recurrent(x)


class Steps(nn.Module):
    """Takes the steps of sequences in the first dimension, as torch's recurrent layers do unless they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 8)

    def forward(self, x: torch.Tensor) -> Any:
        return self.recurrent(x)[0]


class Scaled(nn.Module):
    """One of its inputs belongs to no example."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, factors: torch.Tensor) -> Any:
        return self.hidden(x) * factors


class Counter(nn.Module):
    """Keeps something from call to call."""

    calls: torch.Tensor

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        return self.hidden(x) + self.calls


def branches(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return y if float(x.sum()) > 0 else -y


REFUSALS: dict[str, tuple[Any, Inputs, str]] = {
    "states": (States, torch.randn(1, 5, 8), "output 2 of the model, of shape (1, 1, 8) for 1 examples, does not have"),
    "scalar": (lambda: Returns(lambda y, x: y.mean()), torch.randn(2, 8), "output 1 of the model, of shape () for 2"),
    "batch": (
        lambda: Returns(lambda y, x: y - y.mean(0)),
        torch.randn(2, 8),
        "answers depend on the other examples in the batch (output 1 moves by ",
    ),
    "running sum": (
        lambda: Returns(lambda y, x: y.cumsum(0)),
        torch.randn(2, 8),
        "answers depend on the other examples in the batch (output 1 moves by ",
    ),
    "steps first": (
        Steps,
        torch.randn(5, 2, 8),
        "when the first of them is added at the end): give it inputs with the examples in the first dimension",
    ),
    "no tensor": (
        lambda: Returns(lambda y, x: 3),
        torch.randn(2, 8),
        "needs a model that returns tensors, and Returns",
    ),
    "sizes": (
        Scaled,
        (torch.randn(2, 8), torch.randn(8)),
        "first dimension of every input; their shapes are (2, 8), (8,)",
    ),
    "number": (
        lambda: Returns(lambda y, x: (y, len(x))),
        torch.randn(2, 8),
        "output of Returns holds numbers that depend on how many examples there are",
    ),
    "state": (Counter, torch.randn(2, 8), "Counter changes calls in each call"),
    "double": (lambda: nn.Linear(8, 8).double(), torch.randn(2, 8).double(), "the model holds float64: call .float()"),
    "branch": (
        lambda: Returns(branches),
        torch.ones(2, 8),
        "torch.export can trace, and Returns is not (unconvertible_models.py:",
    ),
    "operator": (
        lambda: Returns(lambda y, x: torch.linalg.eigvalsh(y[:, :, None] * y[:, None])),
        torch.randn(2, 8),
        "cannot convert Returns: litert_torch has no form of something in it",
    ),
}
