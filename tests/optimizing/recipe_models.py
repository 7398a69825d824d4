"""Small models of every kind that the recipes must handle, with inputs, in sizes whose bytes can be counted."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, cast

import cloudpickle
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pytest_modelopt.optimizing.apply import Optimization, optimize
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Context


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

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.block2(self.depthwise(self.block1(self.stem(x)))).mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.embed = nn.Linear(16, 64)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor, padding: torch.Tensor | None = None) -> Any:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding)[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.recurrent = kind(32, 64, batch_first=True)
        self.hidden = nn.Linear(64, 96)
        self.head = nn.Linear(96, 5)

    def forward(self, x: torch.Tensor) -> Any:
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

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.size).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / 4).softmax(-1)
        x = x + self.project((weights @ value).transpose(1, 2).reshape(batch, length, -1))
        x = x + self.narrow(torch.relu(self.wide(x)))
        return self.head(x.mean(1))


class Tied(nn.Module):
    """Embedding and output layer are one weight, as in most language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.hidden(self.embed(x))))


class Shared(nn.Module):
    """One module at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.again = nn.Linear(128, 128)
        self.once_more = self.again
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.once_more(torch.relu(self.again(torch.relu(self.first(x)))))))


class MyLinear(nn.Linear):
    """A subclass whose forward is its own: what replaces it by a plain Linear changes the answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Subclassed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mine = MyLinear(64, 128)
        self.hidden = nn.Linear(128, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.hidden(torch.relu(self.mine(x)))))


class Answers(nn.Module):
    """Returns what `form` says: a dict, or a nested tuple with a None and a number in it."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.body = MLP()
        self.side = nn.Linear(64, 64)
        self.form = form

    def forward(self, x: torch.Tensor) -> Any:
        logits, side = self.body(x), self.side(x)
        return {"logits": logits, "side": side} if self.form is dict else (logits, (side, None, 3))


class TwoInputs(nn.Module):
    """Keyword inputs of different types, one of which can be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.hidden = nn.Linear(64, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor | None = None) -> Any:
        kept = self.embed(tokens) * mask.unsqueeze(-1)
        pooled = kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(torch.relu(self.hidden(pooled if scale is None else pooled * scale)))


Made = tuple[Any, Any]
"""A model and its inputs, whose parts each test knows: to torch, any attribute of a module is a tensor or a module."""


class Optimized(Optimization):
    """For a type checker: `model` has what the test knows that its recipe leaves behind."""

    model: Any


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
    "attention": lambda: (HandWrittenAttention(16), torch.randn(2, 5, 16)),
}
"""Every kind of model that teams have."""

TRAPS: dict[str, Callable[[], Made]] = {
    "tied": lambda: (Tied(), torch.randint(0, 50, (3, 9))),
    "shared": lambda: (Shared(), torch.randn(4, 64)),
    "subclass": lambda: (Subclassed(), torch.randn(4, 64)),
    "dict output": lambda: (Answers(dict), torch.randn(4, 64)),
    "tuple output": lambda: (Answers(tuple), torch.randn(4, 64)),
    "two inputs": lambda: (
        TwoInputs(),
        {"tokens": torch.randint(0, 50, (3, 9)), "mask": torch.ones(3, 9)},
    ),
}
"""What breaks recipes that were written with one model in mind."""


def make(kind: str) -> Made:
    """The same model and inputs at each call."""
    torch.manual_seed(0)
    model, inputs = {**KINDS, **TRAPS}[kind]()
    return model.eval(), inputs


def run(model: nn.Module, inputs: Inputs) -> Any:
    with torch_ao.quiet(), torch.no_grad():
        return call(model, inputs)


def apply(expression: str, model: nn.Module, inputs: Inputs, batches: int = 4) -> Optimized:
    context = Context(inputs, lambda: iter([inputs] * batches), seed=0)
    return cast("Optimized", optimize(model, parse(expression).steps, context))


def outputs(answer: Any) -> list[torch.Tensor]:
    """The tensors in what a model returned, in order."""
    return [leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)]


def relative_error(answer: Any, original: Any) -> float:
    """The largest difference of any output, relative to the largest number of that output of the original."""
    pairs = list(zip(outputs(answer), outputs(original), strict=True))
    assert [one.shape for one, _ in pairs] == [other.shape for _, other in pairs]
    return max(float((one.float() - other.float()).abs().max() / other.abs().max()) for one, other in pairs)


def saved_and_loaded(model: nn.Module) -> Any:
    buffer = io.BytesIO()
    with torch_ao.quiet():
        torch.save(model, buffer, pickle_module=cloudpickle)
        buffer.seek(0)
        return torch.load(buffer, weights_only=False)
