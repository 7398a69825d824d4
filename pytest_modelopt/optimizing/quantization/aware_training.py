"""Quantization-aware training: layers that answer as their quantized forms do while the project's function trains them.

A layer answers by the recipe's own conversion of its present weights, so that the training sees the arithmetic that
ships, bit by bit. Gradients are those of the layer in floating point (the straight-through estimator, Bengio et al.,
arXiv:1308.3432). torchao's `QATConfig` takes the configuration of none of the int8 recipes (0.18), and its fake
quantizers know neither a scale for a whole tensor nor symmetric activations.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_modelopt.optimizing.bisection import in_words
from pytest_modelopt.optimizing.describe import last_line, modules_in_words
from pytest_modelopt.optimizing.finetuning import Finetune, finetune
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.own_behavior import plain_twin
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Context, LayerRecipe, RecipeError

if TYPE_CHECKING:
    from torch import nn

    Converter: TypeAlias = Callable[[nn.Module], nn.Module]

_MARK = "_trained_as"
"""Of the classes that layers have meanwhile: their own class."""


class TrainsQuantized(LayerRecipe):
    """What the recipes have in common that have the project train the layers which they then quantize.

    Each layer that the recipe will quantize answers meanwhile as it will then; the others train in floating point.
    """

    finetune: Finetune = ""

    @property
    def calibrates(self) -> bool:
        return bool(self.finetune)

    @abstractmethod
    def to_quantize(self, model: nn.Module, context: Context) -> tuple[Sequence[nn.Module], Converter]:
        """The layers that `apply` quantizes, and what makes the quantized form of one, which it may use up."""

    def train(self, model: nn.Module, context: Context) -> tuple[nn.Module, tuple[str, ...]]:
        if not self.finetune:
            return model, ()
        layers, convert = self.to_quantize(model, context)
        trained = model
        try:
            with torch_ao.quiet(), unfused():
                in_float = answer_as_quantized(layers, convert)
                trained, note = finetune(model, self.recipe_name, self.finetune, context)
        finally:
            for module in {*model.modules(), *trained.modules()}:
                module.__class__ = getattr(type(module), _MARK, type(module))
        return trained, (note, *in_words(in_float, modules_in_words, "trained in floating point"))


def answer_as_quantized(layers: Iterable[nn.Module], convert: Converter) -> dict[nn.Module, str]:
    """Let each layer answer as its quantized form, through a class of its own; returns those that cannot, and why.

    The object, its hooks and the names of its weights stay, and so does what `isinstance` says of it.
    """
    classes: dict[type, type] = {}
    in_float: dict[nn.Module, str] = {}
    for layer in layers:
        kind = type(layer)
        try:
            _converted(layer, kind, convert)
        except Exception as error:
            in_float[layer] = last_line(error)
        else:
            layer.__class__ = classes.setdefault(kind, _aware(kind, convert))
    return in_float


def _converted(layer: nn.Module, kind: type[nn.Module], convert: Converter) -> nn.Module:
    """The quantized form of a layer with its present weights; what is converted is another object."""
    twin = plain_twin(layer)
    if twin is None:
        raise RecipeError("their weights are not those that their class knows by name")
    twin.__class__ = kind
    return convert(twin)


def _aware(kind: type[nn.Module], convert: Converter) -> type[nn.Module]:
    """A class derived from that of a layer, which answers as the quantized form and passes gradients to the layer."""
    import torch
    from torch.utils import _pytree

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, plain: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
            return quantized.view_as(quantized)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
            return gradients[0], None

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        device = next(self.parameters()).device
        # both forms drop the same activations, where they drop any (`dropout` of nn.MultiheadAttention)
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            answer = _converted(self, kind, convert)(*args, **kwargs)
        if not torch.is_grad_enabled():
            return answer
        plain, structure = _pytree.tree_flatten(kind.forward(self, *args, **kwargs))
        pairs = zip(plain, _pytree.tree_leaves(answer), strict=True)
        return _pytree.tree_unflatten(
            [Through.apply(one, other) if _has_gradient(one) else other for one, other in pairs],  # type: ignore[no-untyped-call]
            structure,
        )

    return type(f"Aware{kind.__name__}", (kind,), {"forward": forward, _MARK: kind, "__module__": kind.__module__})


def _has_gradient(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
