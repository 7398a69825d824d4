"""channels-last: convolutions work in the memory format that their vectorized kernels like best; no number changes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, modules_in_words, user_line
from pytest_modelopt.optimizing.modules.shared_tensors import same_view
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, Recipe, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import nn


class ChannelsLast(Recipe):
    """Keep the weights of 2-d and 3-d convolutions, and the inputs of the model, in channels-last memory format."""

    recipe_name: ClassVar[str] = "channels-last"
    summary: ClassVar[str] = "convolutions work in channels-last memory format; the same numbers"
    changes: ClassVar[tuple[str, ...]] = ("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d")
    takes: ClassVar[tuple[Form, ...]] = ("float", "low precision")

    def apply(self, model: nn.Module, context: Context) -> Applied:
        from pytest_modelopt.optimizing.graph.channels_last_module import BackToContiguous, IntoChannelsLast

        convolutions = _convolutions(model)
        if not convolutions:
            return Applied(model)
        before, answer = _formats(model, convolutions, context.example_inputs)
        done: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}
        changed = {name for name, module in convolutions.items() if _convert(module, done)}
        dimensions = frozenset(module.weight.ndim for module in convolutions.values())
        model.register_forward_pre_hook(IntoChannelsLast(dimensions), with_kwargs=True)
        model.register_forward_hook(BackToContiguous.of(answer))
        after, _ = _formats(model, convolutions, context.example_inputs)
        reached = {
            name
            for name in after
            if after[name] == "channels last" != before[name] or (after[name] == "both" and name in changed)
        }
        return Applied(model, _notes(convolutions, before, after, reached), frozenset(reached))


def _convolutions(model: nn.Module) -> dict[str, Any]:
    """Those with weights of 4 or 5 dimensions that are a parameter of their own."""
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd)
        and module._parameters.get("weight") is not None
        and module.weight.ndim in (4, 5)
    }


def _convert(module: Any, done: dict[Hashable, tuple[torch.Tensor, torch.Tensor]]) -> bool:
    """Lay out the weight in channels-last; whether its strides are others now. `done` has those before and after.

    Those of 1 x 1 kernels and of kernels with one input channel already fit both formats: they stay, and torch takes
    the format of the layer's input.
    """
    from pytest_modelopt.optimizing.graph.channels_last_module import FORMATS

    weight = module.weight
    before = weight.stride()
    key, data = same_view(weight), weight.data
    if key not in done:  # numbers that two layers share stay shared
        done[key] = data, data.contiguous(memory_format=FORMATS[weight.ndim])
    weight.data = done[key][1]
    return bool(weight.stride() != before)


def _formats(model: nn.Module, convolutions: Mapping[str, Any], inputs: Inputs) -> tuple[dict[str, str], Any]:
    """In which memory format each convolution answered in one call, those not called left out; and the answer."""
    import torch

    found: dict[str, str] = {}

    def watch(name: str) -> Any:
        return lambda _module, _inputs, output: found.update({name: _format(output)})

    hooks = [module.register_forward_hook(watch(name), prepend=True) for name, module in convolutions.items()]
    try:
        with torch.no_grad():
            answer = call(model, inputs)
    except Exception as error:
        raise RecipeError(
            f"channels-last: the model does not run in this memory format{user_line(error)}: {last_line(error)}; "
            "`reshape` and `flatten` work in any format where `view` does not"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return found, answer


def _format(output: torch.Tensor) -> str:
    from pytest_modelopt.optimizing.graph.channels_last_module import FORMATS

    if output.ndim not in FORMATS:  # of a single example without its batch
        return "contiguous"
    is_last = output.is_contiguous(memory_format=FORMATS[output.ndim])
    if is_last and output.is_contiguous():
        return "both"
    return "channels last" if is_last else "contiguous"


def _notes(
    convolutions: Mapping[str, Any], before: Mapping[str, str], after: Mapping[str, str], reached: set[str]
) -> tuple[str, ...]:
    reasons: dict[str, list[Any]] = {}
    for name, module in convolutions.items():
        if name in reached:
            continue
        if name not in after:
            reason = "the forward pass never calls them"
        elif before[name] == "channels last":
            reason = "they work in channels-last already"
        elif after[name] == "both":
            reason = "with one channel, or one pixel, both formats are the same"
        else:
            reason = "they answer in the contiguous format all the same"
        reasons.setdefault(reason, []).append(module)
    return tuple(f"{modules_in_words(modules)} left as they are: {reason}" for reason, modules in reasons.items())
