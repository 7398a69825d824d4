"""Small models of every kind that the recipes must handle, with inputs, in sizes whose bytes can be counted."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cloudpickle
import torch
from torch import nn

from pytest_modelopt.recipes import torch_ao
from pytest_modelopt.recipes.base import Context
from pytest_modelopt.recipes.calling import Inputs, call
from pytest_modelopt.recipes.expression import parse
from pytest_modelopt.recipes.optimize import Optimization, optimize


class MLP(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class CNN(nn.Module):
    """Batch norm, residuals and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block1 = Block(16, 32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.block2 = Block(32, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block2(self.depthwise(self.block1(self.stem(x)))).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.embed = nn.Linear(16, 64)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding)[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.recurrent = kind(32, 64, batch_first=True)
        self.hidden = nn.Linear(64, 96)
        self.head = nn.Linear(96, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(self.recurrent(self.embed(x))[0][:, -1])))


class HandWrittenAttention(nn.Module):
    """One residual attention block as many projects write it; the last size of the reshape is `size`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 64)
        self.qkv = nn.Linear(64, 192)
        self.project = nn.Linear(64, 64)
        self.wide = nn.Linear(64, 128)
        self.narrow = nn.Linear(128, 64)
        self.head = nn.Linear(64, 5)
        self.num_heads = 4
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.size).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / 4).softmax(-1)
        x = x + self.project((weights @ value).transpose(1, 2).reshape(batch, length, -1))
        x = x + self.narrow(torch.relu(self.wide(x)))
        return self.head(x.mean(1))


Made = tuple[nn.Module, Inputs]

KINDS: dict[str, Callable[[], Made]] = {
    "mlp": lambda: (MLP(), torch.randn(4, 64)),
    "cnn": lambda: (CNN(), torch.randn(2, 3, 16, 16)),
    "encoder": lambda: (Encoder(), torch.randn(2, 7, 16)),
    "masked encoder": lambda: (
        Encoder(),
        (torch.randn(2, 7, 16), torch.tensor([[False] * 7, [False] * 4 + [True] * 3])),
    ),
    "lstm": lambda: (Recurrent(nn.LSTM), torch.randint(0, 50, (3, 9))),
    "gru": lambda: (Recurrent(nn.GRU), torch.randint(0, 50, (3, 9))),
    "dict inputs": lambda: (Encoder(), {"x": torch.randn(2, 7, 16)}),
}


def make(kind: str) -> Made:
    """The same model and inputs at each call."""
    torch.manual_seed(0)
    model, inputs = KINDS[kind]()
    return model.eval(), inputs


def run(model: nn.Module, inputs: Inputs) -> Any:
    with torch_ao.quiet(), torch.no_grad():
        return call(model, inputs)


def apply(expression: str, model: nn.Module, inputs: Inputs, batches: int = 4) -> Optimization:
    return optimize(model, parse(expression), Context(inputs, lambda: iter([inputs] * batches), seed=0))


def saved_and_loaded(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    with torch_ao.quiet():
        torch.save(model, buffer, pickle_module=cloudpickle)
        buffer.seek(0)
        loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded
