"""A user's project, which the tests of metrics copy: four tasks with their data, training, and what their metrics need.

Factories load the weights that `train` has left in the working folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

LETTERS = "_ abcdefgh"
"""Of the speech task; the first one is the blank."""
Data = tuple[torch.Tensor, torch.Tensor]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class PerStep(nn.Module):
    """The same two layers for each step of a sequence, or for the one vector that there is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, 96)
        self.head = nn.Linear(96, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(torch.relu(self.hidden(x)))
        return answer


class Tokens(PerStep):
    def __init__(self) -> None:
        super().__init__(32, 12)
        self.embedding = nn.Embedding(12, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.embedding(x))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "regression": lambda: PerStep(8, 1),
    "labels": lambda: PerStep(10, 5),
    "tokens": Tokens,
    "speech": lambda: PerStep(16, len(LETTERS)),
}


# --- data ------------------------------------------------------------------------------------------------------------


def regression_data(seed: int = 1, count: int = 200) -> Data:
    inputs = torch.randn(count, 8, generator=seeded(seed))
    rule = torch.randn(8, 1, generator=seeded(0))
    noise = 0.3 * torch.randn(count, 1, generator=seeded(seed + 100))
    return inputs, torch.tanh(inputs @ rule) + 0.3 * inputs[:, :1] + noise


def labels_data(seed: int = 1, count: int = 200) -> Data:
    inputs = torch.randn(count, 10, generator=seeded(seed))
    noise = 0.5 * torch.randn(count, 5, generator=seeded(seed + 100))
    return inputs, (inputs @ torch.randn(10, 5, generator=seeded(0)) + noise > 0.5).long()


def tokens_data(seed: int = 1, count: int = 150) -> Data:
    """The next token follows a rule three times of four; what comes after the end of a sequence is -100."""
    tokens = torch.randint(12, (count, 9), generator=seeded(seed))
    for step in range(1, 9):
        follows = torch.rand(count, generator=seeded(seed + step)) < 0.75
        tokens[:, step] = torch.where(follows, (5 * tokens[:, step - 1] + 3) % 12, tokens[:, step])
    lengths = torch.randint(3, 9, (count, 1), generator=seeded(seed + 50))
    return tokens[:, :-1], tokens[:, 1:].masked_fill(torch.arange(8) >= lengths, -100)


def frames(letters: torch.Tensor) -> torch.Tensor:
    """What is spoken in each frame: two of every letter and a blank."""
    return torch.stack([letters, letters, torch.zeros_like(letters)], dim=2).reshape(len(letters), -1)


def speech_data(seed: int = 1, count: int = 120) -> Data:
    """Noisy frames of spelled words, and their letters."""
    letters = torch.randint(2, len(LETTERS), (count, 15), generator=seeded(seed))
    letters[:, 4::5] = 1
    voices = torch.randn(len(LETTERS), 16, generator=seeded(0))
    return voices[frames(letters)] + 0.9 * torch.randn(count, 45, 16, generator=seeded(seed + 100)), letters


DATA = {"regression": regression_data, "labels": labels_data, "tokens": tokens_data, "speech": speech_data}


# --- what the metrics need -------------------------------------------------------------------------------------------


def spelled(path: torch.Tensor) -> str:
    """Greedy decoding as of CTC: repeated letters are one, blanks are none."""
    steps = [int(step) for step in path]
    return "".join(LETTERS[now] for before, now in zip([0, *steps], steps, strict=False) if now not in (before, 0))


def decoded(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[list[str], list[str]]:
    return [spelled(path) for path in outputs.argmax(2)], ["".join(LETTERS[int(i)] for i in line) for line in targets]


# --- training --------------------------------------------------------------------------------------------------------


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs.transpose(1, 2), targets)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "regression": functional.mse_loss,
    "labels": lambda outputs, targets: functional.binary_cross_entropy_with_logits(outputs, targets.float()),
    "tokens": cross_entropy,
    "speech": lambda outputs, targets: cross_entropy(outputs, frames(targets)),
}


def train(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    inputs, targets = DATA[name](seed=7, count=600)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        LOSSES[name](model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.save(model.state_dict(), folder / f"{name}.pt")


def load(name: str) -> nn.Module:
    model = MODELS[name]()
    model.load_state_dict(torch.load(f"{name}.pt", weights_only=True))
    return model.eval()


def regression() -> nn.Module:
    return load("regression")


def labels() -> nn.Module:
    return load("labels")


def tokens() -> nn.Module:
    return load("tokens")


def speech() -> nn.Module:
    return load("speech")


# --- metrics, and what cannot be scored ------------------------------------------------------------------------------


def column(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs().mean(1)


def column_too_short(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return column(outputs, targets)[1:]


def raises(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    raise ZeroDivisionError("no positives")


def nothing(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float("nan")


for metric in (column, column_too_short, raises, nothing):
    direction: Any = metric
    direction.higher_is_better = False


def out_of_range() -> Data:
    inputs, _ = labels_data()
    return inputs, torch.arange(200) % 7


def one_example() -> Data:
    inputs, targets = regression_data()
    return inputs[:1], targets[:1]


def no_example() -> Data:
    inputs, targets = regression_data()
    return inputs[:0], targets[:0]
