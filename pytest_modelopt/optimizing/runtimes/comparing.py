"""The converted program beside the model, in floating point: whether both answer the same before anything is quantized.

A converter follows operators. What the class of a weight does around them (`__torch_function__`), and what Python
decides by values, is not in its program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import author_name, last_line, type_name
from pytest_modelopt.optimizing.finite import largest_difference
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import nn

LARGEST_DIFFERENCE = 0.01
"""Of the largest number of an output: float32 gives some 1e-6, a size that was taken for a constant far more."""
_NEXT_TO_NOTHING = 1e-5
_NAMED = 3


def refuse_other_answers(
    model: nn.Module, variant: Callable[..., Any], inputs: Inputs, recipe_name: str, what: str = "the example inputs"
) -> None:
    """Raise a RecipeError where `variant`, which is the converted `model`, fails or answers something else than it.

    A model that answers differently each time is not judged. The error names weights that have arithmetic of their own.
    """
    import torch

    with torch.no_grad(), unfused():
        try:
            answer = call(variant, inputs)
        except Exception as error:
            raise RecipeError(f"{recipe_name}: converted, the model fails on {what}: {last_line(error)}") from error
        expected = call(model, inputs)
        different = difference(answer, expected)
        if different <= LARGEST_DIFFERENCE or difference(call(model, inputs), expected) > LARGEST_DIFFERENCE:
            return
    raise RecipeError(
        f"{recipe_name}: converted, the model answers differently on {what}: its outputs differ by "
        f"{different:.1%} of the largest number; {_cause(model)}"
    )


def _cause(model: nn.Module) -> str:
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    owners = [(name, tensor) for name, tensor in tensors if _has_arithmetic(type(tensor))]
    if not owners:
        return (
            "usually forward decides something in Python, by a size or a value, which a converted model cannot: decide "
            "it by tensors, as `torch.where` does"
        )
    names = ", ".join(f"`{author_name(name)}` (a {type(tensor).__name__})" for name, tensor in owners[:_NAMED])
    more = f" and {len(owners) - _NAMED} more" if len(owners) > _NAMED else ""
    return (
        f"the arithmetic of the classes of {names}{more} is not in a converted program, which knows operators only: do "
        f"it in the forward of a module of {type_name(model)}, or by torch.nn.utils.parametrize"
    )


def _has_arithmetic(kind: type) -> bool:
    """Whether tensors of this class do something else in some operator than plain ones."""
    import torch
    from torch import nn

    plain = (torch.Tensor, nn.Parameter)
    hooks = ("__torch_function__", "__torch_dispatch__")
    return any(name in vars(each) for each in kind.__mro__ if each not in (*plain, object) for name in hooks)


def difference(answer: Any, original: Any) -> float:
    """The largest difference of any floating-point output, relative to the largest finite number of that output.

    Infinite where the outputs differ in number, kind or shape. What is next to nothing beside the other outputs (a loss
    that is zero up to rounding) is held against a part of them.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    ones, others = tree_leaves(answer), tree_leaves(original)
    if len(ones) != len(others):
        return float("inf")
    found = []
    for one, other in zip(ones, others, strict=True):
        if not isinstance(other, torch.Tensor) or not other.numel():
            continue
        if not isinstance(one, torch.Tensor) or one.shape != other.shape:
            return float("inf")
        if other.is_floating_point():
            found.append(largest_difference(other.detach(), one.detach()))
    least = _NEXT_TO_NOTHING * max((scale for _, scale in found), default=0.0)
    return max((apart / (max(scale, least) or 1.0) for apart, scale in found), default=0.0)
