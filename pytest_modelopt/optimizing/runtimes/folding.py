"""Which weights a quantizer left in floating point, where converting has scaled or dropped some of them before.

A converter folds batch norm, and factors that the model multiplies with, into the weights before them: their numbers
are then no longer those of the model, quantized or not. So a weight counts as quantized on evidence only: its numbers,
or its rows up to a factor each, are in the converted program in floating point, and in the quantized one they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.coverage import Numbers

if TYPE_CHECKING:
    import torch
    from torch import nn

SAME = 1e-5
"""Relative difference up to which two figures of a row are the same: float32 rounds at 6e-8, over a few operations."""


def left_in_float(
    weights: Iterable[torch.Tensor], converted: Sequence[torch.Tensor], quantized: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Those of `weights` for whose quantization there is no evidence.

    `converted` and `quantized` are all tensors that the two programs hold in float32.
    """
    import torch

    held = {_bits(tensor) for tensor in quantized}
    gone = [tensor for tensor in converted if _bits(tensor) not in held]
    pool = Numbers(gone)
    vectors = [tensor for tensor in gone if _is_vector(tensor)]

    def is_quantized(weight: torch.Tensor) -> bool:
        if weight.dtype is not torch.float32:
            return False
        if weight.dim() < 2:
            # ones or zeros could be found in any matrix, or in a scalar: they must be a vector of this length
            return Numbers(vector for vector in vectors if vector.numel() == weight.numel()).holds(weight)
        return pool.holds(weight) or _is_scaled(weight, gone)

    return tuple(weight for weight in weights if not is_quantized(weight))


def is_made_of(constant: torch.Tensor, weights: Sequence[torch.Tensor]) -> bool:
    """Whether a matrix of a converted program is one of `weights`, or a part of one: by its numbers, in whatever order,
    or by its rows up to a factor each."""
    if constant.dim() < 2:
        return False
    return any(
        Numbers([weight]).holds(constant) or (weight.numel() == constant.numel() and _is_scaled(weight, [constant]))
        for weight in weights
    )


def matrices_of(modules: Iterable[nn.Module]) -> list[torch.Tensor]:
    """The float32 matrices that modules hold themselves."""
    import torch

    held = (parameter for module in modules for parameter in module._parameters.values())
    return [each.detach() for each in held if each is not None and each.dim() > 1 and each.dtype is torch.float32]


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _is_vector(tensor: torch.Tensor) -> bool:
    return max(tensor.shape, default=1) == tensor.numel()


def _is_scaled(weight: torch.Tensor, gone: Sequence[torch.Tensor]) -> bool:
    """Whether each row, in whatever order its numbers stand, is a row of a vanished tensor times some factor."""
    for rows in _as_rows(weight.detach().cpu().float()):
        candidates = [other for tensor in gone for other in _as_rows(tensor) if other.shape[1] == rows.shape[1]]
        if rows.shape[1] > 1 and candidates and _all_found(_figures(rows), candidates):
            return True
    return False


def _as_rows(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Per output channel, which is the first dimension, the second (transposed) or the last (depthwise)."""
    for dimension in sorted({0, 1, tensor.dim() - 1}):
        if tensor.dim() > dimension and tensor.dim() > 1:
            yield tensor.movedim(dimension, 0).flatten(1)


def _figures(rows: torch.Tensor) -> torch.Tensor:
    """Three figures of each row that neither a factor nor another order changes: norms, relative to the largest."""
    import torch

    rows = rows.double()
    largest = rows.abs().amax(1)
    norms = [rows.abs().mean(1), rows.square().mean(1).sqrt(), rows.sum(1).abs() / rows.shape[1]]
    return torch.stack([norm / largest for norm in norms], 1)


def _all_found(figures: torch.Tensor, candidates: Sequence[torch.Tensor]) -> bool:
    """Whether each row's figures are among those of the candidates; a factor of 0 leaves a row of zeros behind."""
    import torch

    others = torch.cat([_figures(rows) for rows in candidates])
    zeros = int(others.isnan().any(1).sum())
    others = others[~others.isnan().any(1)]
    others = others[others[:, 0].argsort()]
    column = others[:, 0].contiguous()
    wanted = figures[~figures.isnan().any(1)]
    first = torch.searchsorted(column, wanted[:, 0] - SAME)
    last = torch.searchsorted(column, wanted[:, 0] + SAME)
    missing = sum(
        not bool(((others[start:stop] - row).abs() < SAME).all(1).any())
        for row, start, stop in zip(wanted, first.tolist(), last.tolist(), strict=True)
    )
    return len(wanted) > missing and missing <= zeros
