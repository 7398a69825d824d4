"""The rule on numbers that are no answers: NaN and +inf. -inf is the score of what is forbidden.

A model that masks the classes, tokens or positions that are not allowed gives them -inf, on purpose, and argmax and
softmax take it for what it means. NaN and +inf come from arithmetic that went wrong, and argmax would pick them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def no_answers(tensor: torch.Tensor) -> torch.Tensor:
    """Where `tensor` holds NaN or +inf, as a mask."""
    return tensor.isnan() | (tensor == float("inf"))


def lost_answers(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether `after` is infinite or NaN somewhere in another way than `before`, which has its shape.

    A huge negative number in the place of -inf is no loss: some runtimes know no infinities.
    """
    same = before == after.to(before.dtype)
    return bool((~after.isfinite() & ~same & ~(before.isnan() & after.isnan())).any())


def largest_difference(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """(the largest difference, the largest number of `before`), of the finite numbers of `before`.

    A number that is infinite or NaN in `after` and another one in `before` differs infinitely.
    """
    import torch

    if lost_answers(before, after):
        return float("inf"), 0.0
    finite = before.isfinite()
    if not bool(finite.any()):
        return 0.0, 0.0
    difference = torch.where(finite, before.double() - after.double(), 0.0).abs().max()
    return float(difference), float(before[finite].abs().max())
