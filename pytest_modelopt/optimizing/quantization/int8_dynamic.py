"""int8-dynamic: int8 weights for Linear, recurrent layers and EmbeddingBag, activations quantized as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing.bisection import Replacing, in_words
from pytest_modelopt.optimizing.describe import (
    known_base,
    last_line,
    modules_in_words,
    own_bytes,
    owners_in_words,
    type_name,
    types_in_words,
    weight_owners,
)
from pytest_modelopt.optimizing.modules.fused_path import turn_off_fused_path
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.quantization.aware_training import TrainsQuantized
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, RecipeError
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

    from pytest_modelopt.optimizing.quantization.aware_training import Converter


class Int8Dynamic(TrainsQuantized):
    """Int8 weights for Linear, LSTM, GRU, the recurrent cells and EmbeddingBag; activations are quantized call by call,
    but for those of EmbeddingBag, which adds up rows in floating point."""

    recipe_name: ClassVar[str] = "int8-dynamic"
    summary: ClassVar[str] = "int8 weights for Linear, LSTM and GRU; needs no calibration data"
    int8_products: ClassVar[bool] = True
    changes: ClassVar[tuple[str, ...]] = ("Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell", "EmbeddingBag")
    gives: ClassVar[Form | None] = "packed"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        quantization = torch_ao.load("torch.ao.quantization", self.recipe_name)
        _, notes = torch_ao.ensure_engine(self.recipe_name)
        chosen, kept, own = self._plan(model, context)
        replacing = Replacing(model, context.example_inputs, lambda module: _packed(quantization, module))
        with torch_ao.quiet():
            kept |= replacing.replace([(module,) for module in chosen])
        model = replacing.model
        notes += (*in_words(kept, modules_in_words, "left as they are"), *_left_in_float(model, {*kept, *context.kept}))
        return Applied(model, (*notes, *turn_off_fused_path(model)), unlike_class=named(model, own))

    def to_quantize(self, model: nn.Module, context: Context) -> tuple[Sequence[nn.Module], Converter]:
        quantization = torch_ao.load("torch.ao.quantization", self.recipe_name)
        torch_ao.ensure_engine(self.recipe_name)

        def packed(module: nn.Module) -> nn.Module:
            if getattr(module, "dropout", 0):
                raise RecipeError("torch's packed form draws its dropout otherwise, so that gradients would not fit")
            return _packed(quantization, module)

        return self._plan(model, context)[0], packed

    def _plan(
        self, model: nn.Module, context: Context
    ) -> tuple[list[nn.Module], dict[nn.Module, str], dict[nn.Module, str]]:
        """The modules to pack, those that stay with the reason, and of these the ones unlike their class."""
        candidates = context.free(of_classes(model, self.changes))
        tied = tied_parameters(model)
        own = own_behavior(model, context.example_inputs, candidates)
        kept = dict(own)
        kept |= {module: why for module in candidates if module not in kept and (why := _reason_to_keep(module, tied))}
        return [module for module in candidates if module not in kept], kept, own


def _packed(quantization: Any, module: nn.Module) -> nn.Module:
    """The packed form of one module.

    Raises:
        RecipeError: there is none.
    """
    from torch import nn

    holder = nn.Sequential(module)
    try:
        is_bag = isinstance(module, nn.EmbeddingBag)
        spec = {nn.EmbeddingBag: quantization.float_qparams_weight_only_qconfig} if is_bag else {type(module)}
        quantization.quantize_dynamic(holder, spec, inplace=True)
    except Exception as error:
        raise RecipeError(f"torch cannot pack it ({last_line(error)})") from error
    finally:
        vars(module).pop("qconfig", None)
    if holder[0] is module:
        raise RecipeError("torch has no packed form of it")
    return holder[0]


def _reason_to_keep(module: nn.Module, tied: set[int]) -> str:
    import torch
    from torch import nn

    if isinstance(module, nn.EmbeddingBag) and (module.mode != "sum" or module.padding_idx is not None):
        return "torch's packed EmbeddingBag sums rows and knows no padding_idx; int8-weight-only takes them"
    if isinstance(module, nn.EmbeddingBag) and module.max_norm is not None:
        return "max_norm makes every call write into their weight"
    parameters = list(module.parameters(recurse=False))
    dtypes = {parameter.dtype for parameter in parameters}
    if dtypes != {torch.float32}:
        words = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"packing needs float32 weights, and they are {words}"
    if {id(parameter) for parameter in parameters} & tied:
        return "another module shares their weight, which would stay in float32 beside the int8 copy"
    return ""


def _left_in_float(model: nn.Module, explained: set[nn.Module]) -> tuple[str, ...]:
    """Notes on the weights that the technique does not reach, by the reason."""
    from torch import nn

    attention: list[nn.Module] = []
    linear: list[tuple[str, int]] = []
    convolutions: list[nn.Module] = []
    others: list[nn.Module] = []
    derived: dict[str, list[nn.Module]] = {}
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    within_attention = {child for module in attentions for child in module.modules()}
    for _, module in weight_owners(model):
        if module in explained or module in within_attention or _is_packed(module):
            continue
        if isinstance(module, nn.Linear):
            linear.append((type_name(module), own_bytes(module)))
        elif isinstance(module, nn.modules.conv._ConvNd):
            convolutions.append(module)
        elif (base := known_base(module)) in Int8Dynamic.changes:
            derived.setdefault(base, []).append(module)
        elif any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)):
            others.append(module)
    attention = [m for m in attentions if m not in explained and any(True for _ in m.parameters())]
    notes = []
    if attention:
        sizes = format_bytes(sum(p.nbytes for m in attention for p in m.parameters() if p.dim() > 1))
        notes.append(
            f"{modules_in_words(attention)} left in floating point: torch packs neither in_proj_weight nor out_proj "
            f"(a NonDynamicallyQuantizableLinear) of MultiheadAttention, together {sizes}"
        )
    if linear:
        notes.append(
            f"{types_in_words(linear)} left in floating point: torch packs exact nn.Linear only, no subclasses"
        )
    for base, modules in derived.items():
        notes.append(
            f"{owners_in_words(modules)} left in floating point: torch packs exact nn.{base} only, no subclasses; use "
            f"nn.{base} itself where the forward is the same"
        )
    if convolutions:
        notes.append(f"{owners_in_words(convolutions)} left in floating point: int8-static quantizes convolutions")
    if others:
        notes.append(f"{owners_in_words(others)} left in floating point: int8-dynamic has no kernel for them")
    return tuple(notes)


def _is_packed(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn")
