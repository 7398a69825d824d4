"""Answers of a model that was changed without a change of what it computes: how far they are from those before."""

from __future__ import annotations

from typing import Any

LARGEST_TOLERANCE = 0.1
TOLERATED_ROUNDINGS = 1000
"""Relative to the largest answer, in units of the precision: each folded layer rounds a little differently."""


def other_answers(original: Any, changed: Any) -> str:
    """How far the answers are from those of the original, in words; '' for what rounding does."""
    import torch
    from torch.utils import _pytree

    from pytest_modelopt.optimizing.finite import largest_difference

    for before, after in zip(_pytree.tree_leaves(original), _pytree.tree_leaves(changed), strict=True):
        if not isinstance(before, torch.Tensor) or not before.is_floating_point() or not before.numel():
            continue
        tolerance = min(LARGEST_TOLERANCE, TOLERATED_ROUNDINGS * torch.finfo(before.dtype).eps)
        difference, largest = largest_difference(before, after)
        if not difference <= tolerance * largest:
            return f"differ by {difference:.3g}, and the largest is {largest:.3g}"
    return ""
