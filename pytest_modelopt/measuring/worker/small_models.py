"""Small models on which recipes are checked, each with data; a worker finds them by name."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 10
EXAMPLES = 32
KINDS = ("mlp", "cnn", "lstm", "attention")


class _Cnn(nn.Module):
    """Convolutions with batch norm, and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        features: torch.Tensor = self.head((y + self.body(y)).mean((2, 3)))
        return features


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.recurrent = nn.LSTM(32, 64, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.recurrent(self.embed(x))[0][:, -1])
        return scores


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 64)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        scores: torch.Tensor = self.head(self.norm(y + self.attention(y, y, y)[0]).mean(1))
        return scores


def mlp() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, CLASSES))
    return nn.Sequential(*layers).eval()


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return _Cnn().eval()


def lstm() -> nn.Module:
    torch.manual_seed(0)
    return _Lstm().eval()


def attention() -> nn.Module:
    torch.manual_seed(0)
    return _Attention().eval()


def mlp_data() -> tuple[torch.Tensor, torch.Tensor]:
    return _numbers(64), _targets()


def cnn_data() -> tuple[torch.Tensor, torch.Tensor]:
    return _numbers(3, 8, 8), _targets()


def lstm_data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 50, (EXAMPLES, 7), generator=torch.Generator().manual_seed(1)), _targets()


def attention_data() -> tuple[torch.Tensor, torch.Tensor]:
    return _numbers(7, 16), _targets()


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(1))


def _targets() -> torch.Tensor:
    return torch.arange(EXAMPLES) % CLASSES
