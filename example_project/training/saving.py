"""Saving data and weights so that an interrupted script never leaves half a file behind."""

from pathlib import Path

import torch
from torch import nn


def save_whole(content: object, path: Path) -> None:
    """Save with `torch.save` beside `path` first, and rename only when the file is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        torch.save(content, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def save_weights(model: nn.Module, path: Path) -> None:
    """Save the state dict in float16: half the download, and far finer than the noise left by training."""
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    save_whole(state, path)


def accuracy(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, batch_size: int = 256) -> float:
    """The share (0 to 1) of `inputs` whose largest logit is at the target; the model is put in eval mode."""
    model.eval()
    hits = 0
    with torch.inference_mode():
        for x, y in zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True):
            hits += int((model(x).argmax(1) == y).sum())
    return hits / len(targets)
