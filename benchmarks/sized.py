"""Models from 0.1 to 400 MiB with random weights: their time depends on their size, not on what they have learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.zoo import SIDE, Convolutions, HandWritten

INPUTS = 1024
SEED = 3


def _mlp(width: int, inputs: int = INPUTS) -> nn.Module:
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    ).eval()


def mlp_100_kib() -> nn.Module:
    return _mlp(128, 64)


def mlp_12_mib() -> nn.Module:
    return _mlp(1344)


def mlp_14_mib() -> nn.Module:
    """As `mlp_12_mib`, with 13% more weights: what a careless change makes of it."""
    return _mlp(1440)


def mlp_48_mib() -> nn.Module:
    return _mlp(3072)


def mlp_400_mib() -> nn.Module:
    return _mlp(9728)


def convolutions() -> nn.Module:
    torch.manual_seed(SEED)
    return Convolutions().eval()


def attention() -> nn.Module:
    torch.manual_seed(SEED)
    return HandWritten().eval()


def _examples(*shape: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(64, *shape, generator=torch.Generator().manual_seed(SEED))
    return inputs, torch.zeros(64, dtype=torch.long)


def vectors() -> tuple[Tensor, Tensor]:
    return _examples(INPUTS)


def short_vectors() -> tuple[Tensor, Tensor]:
    return _examples(64)


def images() -> tuple[Tensor, Tensor]:
    return _examples(1, SIDE, SIDE)


MODELS: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made for made in (mlp_100_kib, mlp_12_mib, mlp_48_mib, mlp_400_mib, convolutions, attention)
}
