"""A trained model of each kind, for the table of recipes: trained by this file, once, on the data of example_project.

The weights go to bench-results/zoo: `python -m benchmarks.zoo` trains what is missing there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import RESULTS
from example_project import speech, vision

FOLDER = RESULTS / "zoo"
SEED = 11
SIDE = 32
"""Pixels of an image: the 8x8 digits enlarged, so that convolutions have something to do."""
BATCH, LEARNING_RATE = 64, 1e-3


# --- models ----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Convolutions(nn.Module):
    """A small residual network, 1.2 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.blocks = nn.Sequential(Residual(32, 64, 2), Residual(64, 128, 2), Residual(128, 192, 2))
        self.head = nn.Linear(192, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(functional.relu(self.stem(images))).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Multi-head self-attention as projects write it: one Linear for queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_size = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_size).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.narrow(functional.gelu(self.wide(self.norm2(x))))
        return out


class HandWritten(nn.Module):
    """A Vision Transformer with attention of its own, 3.2 million weights; 16 tokens of 8x8 pixels."""

    def __init__(self, width: int = 256, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Linear(64, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(functional.unfold(images, 8, stride=8).transpose(1, 2)) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


class Recurrent(nn.Module):
    """A two-layer LSTM over the frames of speech, 1.3 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(speech.MEL_BANDS, 320, 2, batch_first=True)
        self.head = nn.Linear(320, 10)

    def forward(self, spectrograms: Tensor) -> Tensor:
        states, _ = self.lstm(spectrograms.transpose(1, 2))
        logits: Tensor = self.head(states.mean(1))
        return logits


def _plain() -> nn.Module:
    """Linear layers only, 6.3 million weights."""
    width = 2048
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


# --- what budgets.yaml names -----------------------------------------------------------------------------------------


def convolutional() -> nn.Module:
    return _trained("convolutional")


def attention() -> nn.Module:
    return _trained("attention")


def recurrent() -> nn.Module:
    return _trained("recurrent")


def plain() -> nn.Module:
    return _trained("plain")


def images() -> tuple[Tensor, Tensor]:
    return _enlarged(vision.test_data())


def training_images() -> tuple[Tensor, Tensor]:
    return _enlarged(vision.train_data())


def _enlarged(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return functional.interpolate(data[0], size=(SIDE, SIDE), mode="bilinear"), data[1]


# --- training --------------------------------------------------------------------------------------------------------

MADE: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], int]] = {
    "convolutional": (Convolutions, training_images, 12),
    "attention": (HandWritten, training_images, 12),
    "recurrent": (Recurrent, speech.train_data, 5),
    "plain": (_plain, training_images, 12),
}
"""Architecture, training data and epochs."""


@cache
def _trained(name: str) -> nn.Module:
    model = MADE[name][0]()
    model.load_state_dict(torch.load(FOLDER / f"{name}.pt", weights_only=True))
    return model.eval()


def train(name: str) -> None:
    """Train one model and write its weights."""
    make, data, epochs = MADE[name]
    torch.manual_seed(SEED)
    model = make().train()
    inputs, targets = data()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.02)
    steps = epochs * -(-len(targets) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * LEARNING_RATE, total_steps=steps)
    start = time.monotonic()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(targets)), BATCH):
            loss = functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = FOLDER / f"{name}.pt.part"
    torch.save(model.state_dict(), part)
    part.replace(FOLDER / f"{name}.pt")
    print(f"{name}: {epochs} epochs in {time.monotonic() - start:.0f} s, last loss {loss.item():.4f}", flush=True)


def main(names: Iterable[str] = ()) -> None:
    """Train the models that are missing, or those of them that are named."""
    torch.set_num_threads(1)
    for name in names or MADE:
        if not (FOLDER / f"{name}.pt").exists():
            train(name)


if __name__ == "__main__":
    main(sys.argv[1:])
