"""The door to torchao's `quantize_`, which puts quantized tensors in the place of weights: of which, and why not.

torchao changes `nn.Linear` and its subclasses, and nn.Embedding, in place: the module, its hooks and its own forward
stay, and only the weight becomes a tensor class, which answers to `torch.nn.functional.linear` and `embedding`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pytest_modelopt.optimizing.bisection import in_words, run, settle
from pytest_modelopt.optimizing.describe import last_line, modules_in_words, own_bytes, type_name, types_in_words
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior, own_forward, reparametrized
from pytest_modelopt.optimizing.modules.shared_tensors import held, tied_parameters
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.quantization.aware_training import Converter

    Layer: TypeAlias = nn.Linear | nn.Embedding


class TorchaoRecipe(LayerRecipe):
    """What the recipes have in common that quantize weights through torchao."""

    extra: ClassVar[str | None] = "torchao"
    imports_compiler: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("torchao",)
    changes: ClassVar[tuple[str, ...]] = ("Linear",)
    takes: ClassVar[tuple[Form, ...]] = ("float", "low precision")
    gives: ClassVar[Form | None] = "torchao"

    @abstractmethod
    def config(self, context: Context) -> Any:
        """torchao's configuration object for this recipe."""

    @abstractmethod
    def cost_notes(self, context: Context) -> tuple[str, ...]:
        """What the user must know about the speed and the accuracy of the variant, on this machine."""

    def misfit(self, layer: Layer) -> str:
        """Why torchao has no kernel for a layer of this shape and type; '' where it has."""
        return ""

    def apply(self, model: nn.Module, context: Context) -> Applied:
        quantizer = _Quantizer(model, self, context)
        quantizer.quantize()
        notes = (
            *in_words(quantizer.kept, modules_in_words, "left as they are"),
            *_left_in_float(model, {*quantizer.seen, *context.kept}, self.changes),
        )
        if quantizer.quantized:
            notes += (_bits(quantizer.quantized), *self.cost_notes(context))
        return Applied(model, (*notes, *turn_off_fused_path(model)), unlike_class=named(model, quantizer.own))

    def to_quantize(self, model: nn.Module, context: Context) -> tuple[Sequence[nn.Module], Converter]:
        """For recipes of it that train (`aware_training.py`)."""
        config = self.config(context)

        def quantized(layer: Any) -> nn.Module:
            _quantize(layer, config)
            return layer  # type: ignore[no-any-return]

        return list(_Quantizer(model, self, context).quantized), quantized


class _Quantizer:
    """Quantizes what it can, and remembers why the rest stays."""

    def __init__(self, model: nn.Module, recipe: TorchaoRecipe, context: Context) -> None:
        self._model, self._context, self._recipe = model, context, recipe
        self._tied = tied_parameters(model)
        self.kept: dict[Layer, str] = {}
        self.quantized: dict[Layer, torch.Tensor] = {}
        """With their weights as they were."""
        layers = context.free(_layers(model, recipe.changes))
        exact = context.free(of_classes(model, recipe.changes))
        self.own = own_behavior(model, context.example_inputs, exact, hooks_stay=True)
        others = {layer: why for layer in layers if (why := reparametrized(layer) or own_forward(layer))}
        self.own = others | self.own
        for layer in layers:
            reason = self.own.get(layer) or self._reason_to_keep(layer)
            if reason:
                self.kept[layer] = reason
            else:
                self.quantized[layer] = layer.weight

    @property
    def seen(self) -> Iterable[Layer]:
        return (*self.kept, *self.quantized)

    def _reason_to_keep(self, layer: Layer) -> str:
        import torch

        weight = layer._parameters.get("weight")
        if weight is None or layer.weight is not weight:
            return "their weight is computed anew for each call"
        if type(weight.data) is not torch.Tensor or not weight.is_floating_point():
            return "their weight is no plain floating-point tensor"
        if id(weight) in self._tied:
            return "another module shares their weight, which would stay in floating point beside the quantized copy"
        if not bool(weight.isfinite().all()):
            return "a weight is infinite or NaN, for which there is no scale"
        if getattr(layer, "max_norm", None) is not None:
            return "max_norm makes every call write into their weight"
        return self._recipe.misfit(layer)

    def quantize(self) -> None:
        """Put torchao's tensors in place; layers with which the model does not run get their weights back."""
        import torch

        with torch_ao.quiet():
            self.kept |= settle(list(self.quantized), self._change, self._undo, self._problem)
        for layer in self.quantized:
            if type(layer.weight.data) is torch.Tensor:
                self.kept.setdefault(layer, "torchao left their weight as it was, without saying why")
        self.quantized = {layer: weight for layer, weight in self.quantized.items() if layer not in self.kept}

    def _change(self, layers: Sequence[Layer]) -> None:
        config = self._recipe.config(self._context)
        for layer in layers:
            _quantize(layer, config)

    def _undo(self, layers: Sequence[Layer]) -> None:
        for layer in layers:
            layer.weight = self.quantized[layer]

    def _problem(self) -> str:
        try:
            run(self._model, self._context.example_inputs)
        except Exception as error:
            return f"the model does not run with torchao's tensors in them ({last_line(error)})"
        return ""


def _layers(model: nn.Module, changes: Sequence[str]) -> list[Layer]:
    """Every Linear but those that belong to an nn.MultiheadAttention, which reads their weights itself; and, where the
    recipe changes them, exact Embedding."""
    from torch import nn

    of_attention = nn.modules.linear.NonDynamicallyQuantizableLinear
    embeddings = set(of_classes(model, ["Embedding"])) if "Embedding" in changes else set()
    return [
        module
        for module in model.modules()
        if (isinstance(module, nn.Linear) and not isinstance(module, of_attention))
        or (isinstance(module, nn.Embedding) and module in embeddings)
    ]


def _bits(layers: Mapping[Layer, torch.Tensor]) -> str:
    """What a weight takes in the quantized layers, which are given with their weights as they were."""
    stored = 8 * sum(part.nbytes for layer in layers for part in held(layer.weight))
    count = sum(weight.numel() for weight in layers.values())
    return f"{_counted(layers)} hold {stored / count:.2f} bits a weight, scales included"


def _counted(modules: Iterable[nn.Module]) -> str:
    return " and ".join(f"{count} {name}" for name, count in Counter(map(type_name, modules)).items())


def _quantize(linear: Layer, config: Any) -> None:
    from torchao.quantization import quantize_

    own_description = vars(linear).get("extra_repr")
    quantize_(linear, config, filter_fn=lambda *_: True)
    # torchao describes the layer by a method of this one object, with which pickle cannot save it
    vars(linear).pop("extra_repr", None)
    if own_description is not None:
        vars(linear)["extra_repr"] = own_description


def _left_in_float(model: nn.Module, seen: set[nn.Module], changes: Sequence[str]) -> tuple[str, ...]:
    """Notes on the matrices that torchao does not reach."""
    from torch import nn

    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    parts = {child for module in attentions for child in module.modules()}
    others = [
        (type_name(module), own_bytes(module))
        for name, module in model.named_modules()
        if module not in parts
        and module not in seen
        and ".parametrizations." not in f".{name}."
        and any(_is_float_matrix(parameter) for parameter in module.parameters(recurse=False))
    ]
    notes = []
    told = [module for module in attentions if module not in seen]
    matrices = [p for module in told for p in module.parameters() if _is_float_matrix(p)]
    if matrices:
        count = f"{len(told)} MultiheadAttention"
        notes.append(
            f"{count} left as they are: torchao quantizes neither in_proj_weight nor out_proj of them, together "
            f"{format_bytes(sum(matrix.nbytes for matrix in matrices))}"
        )
    if others:
        notes.append(
            f"{types_in_words(others)} left as they are: torchao's quantize_ changes {' and '.join(changes)} only"
        )
    return tuple(notes)


def _is_float_matrix(parameter: torch.Tensor) -> bool:
    return parameter.dim() > 1 and parameter.is_floating_point()
