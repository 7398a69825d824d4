"""After pruning without further training: fresh statistics of batch norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, owners_in_words

if TYPE_CHECKING:
    from torch import nn


def recalibrate(model: nn.Module, calibration: Callable[[], Iterator[Inputs]] | None, batches: int) -> tuple[str, ...]:
    """Replace running statistics of batch norm by their average over calibration batches; a note says what was done."""
    from torch import nn

    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        return ()
    words = owners_in_words(norms)
    if calibration is None:
        return (f"{words} keep the statistics of the unpruned model: give calibration data, and they are recomputed",)
    before = [
        (norm, norm.momentum, {key: value.clone() for key, value in norm._buffers.items() if value is not None})
        for norm in norms
    ]
    try:
        seen = _average_statistics(model, norms, itertools.islice(calibration(), batches))
        problem = "" if seen else "the calibration gave no batch"
    except Exception as error:
        problem = last_line(error)
    for norm, momentum, buffers in before:
        norm.momentum = momentum
        norm.eval()
        if problem:
            norm._buffers.update(buffers)
    if problem:
        return (f"{words} keep the statistics of the unpruned model, which could not be recomputed: {problem}",)
    short = f" ({batches} were asked for, the calibration data holds no more)" if seen < batches else ""
    return (f"the statistics of {words} were recomputed on {seen} calibration batches{short}",)


def _average_statistics(model: nn.Module, norms: list[Any], batches: Iterator[Inputs]) -> int:
    import torch

    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all batches alike
        norm.train()
    seen = 0
    with torch.no_grad():
        for inputs in batches:
            call(model, inputs)
            seen += 1
    return seen
