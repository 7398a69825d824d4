"""fold-batchnorm: batch norms become part of the convolution or Linear before them; the answers stay the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_modelopt.optimizing.answers import other_answers
from pytest_modelopt.optimizing.bisection import in_words, settle
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import modules_in_words
from pytest_modelopt.optimizing.modules.fx_tracing import traced
from pytest_modelopt.optimizing.modules.own_behavior import named, of_classes, own_behavior
from pytest_modelopt.optimizing.modules.shared_tensors import replace_modules, tied_parameters
from pytest_modelopt.optimizing.modules.uncompiled import uncompiled
from pytest_modelopt.optimizing.recipe import Applied, Context, Form, LayerRecipe

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


class FoldBatchNorm(LayerRecipe):
    """Fold each BatchNorm into the convolution or Linear whose only user it is.

    y = gamma (W x + b - mean) / sqrt(var + eps) + beta is the layer with the weight W gamma / sqrt(var + eps) and the
    bias (b - mean) gamma / sqrt(var + eps) + beta.
    """

    recipe_name: ClassVar[str] = "fold-batchnorm"
    summary: ClassVar[str] = "folds BatchNorm into the convolution or Linear before it; the same answers"
    changes: ClassVar[tuple[str, ...]] = ("Conv1d", "Conv2d", "Conv3d", "Linear")
    takes: ClassVar[tuple[Form, ...]] = ("float", "low precision")

    def apply(self, model: nn.Module, context: Context) -> Applied:
        import torch

        norms = _batch_norms(model)
        if not norms:
            return Applied(model, ("the model holds no batch norm",))
        model, compile_notes = uncompiled(model)
        finder = _Finder(model, _traced(model, context.example_inputs), context)
        chosen: list[tuple[nn.Module, nn.Module]] = []
        kept: dict[nn.Module, str] = {}
        for norm in norms:
            layer, reason = finder.layer_before(norm)
            if layer is None:
                kept[norm] = reason
            else:
                chosen.append((norm, layer))
        folding = _Folding(model, context.example_inputs)
        with torch.no_grad():
            refused = settle(chosen, folding.fold, folding.undo, folding.problem)
        kept |= {norm: reason for (norm, _), reason in refused.items()}
        notes = in_words(kept, modules_in_words, "left as they are")
        return Applied(folding.model, (*compile_notes, *notes), unlike_class=named(folding.model, finder.unlike_class))


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    from torch import nn

    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _traced(model: nn.Module, inputs: Inputs) -> fx.Graph:
    """The calls that the model makes; arguments that are not given keep their default.

    Raises:
        RecipeError: with the line of the model that cannot be traced.
    """
    from torch import nn
    from torch.fx import Tracer

    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.conv._ConvNd, nn.Linear)

    class Calls(Tracer):
        """Also of subclasses that a project has derived from these layers, which torch.fx would look into."""

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, kinds) or super().is_leaf_module(m, module_qualified_name)

    needs = "fold-batchnorm needs a model that torch.fx can trace, to see what each batch norm follows"
    otherwise = "compile(freezing=true) folds batch norms without such a trace"
    return traced(Calls, model, inputs, needs, otherwise)


def _dimensions(model: nn.Module, inputs: Inputs) -> dict[nn.Module, int]:
    """How many dimensions the answers of convolutions and Linear layers have."""
    import torch
    from torch import nn

    found: dict[nn.Module, int] = {}

    def watch(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        found[module] = output.ndim

    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        with torch.no_grad():
            call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _Finder:
    """Finds for a batch norm the layer that it can be folded into, or the reason why there is none."""

    def __init__(self, model: nn.Module, graph: fx.Graph, context: Context) -> None:
        from torch.nn.utils.parametrize import is_parametrized

        inputs, self._kept = context.example_inputs, context.kept
        modules = dict(model.named_modules(remove_duplicate=False))
        self._called = {node: modules[str(node.target)] for node in graph.nodes if node.op == "call_module"}
        self._calls = Counter(self._called.values())
        self._read = {
            modules[str(node.target).rpartition(".")[0]]
            for node in graph.nodes
            if node.op == "get_attr" and str(node.target).rpartition(".")[0] in modules
        }
        self._tied = tied_parameters(model)
        self._dimensions = _dimensions(model, inputs)
        kinds = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
        layers = of_classes(model, (*FoldBatchNorm.changes, *kinds))
        self._own = own_behavior(model, inputs, [module for module in layers if not is_parametrized(module)])
        self.unlike_class: dict[nn.Module, str] = {}
        """What kept a batch norm from being folded since it does not behave like its class."""

    def layer_before(self, norm: nn.Module) -> tuple[nn.Module | None, str]:
        reason = self._unfit_norm(norm)
        if reason:
            return None, reason
        (node,) = [node for node, module in self._called.items() if module is norm]
        before: Any = node.args[0] if node.args else None
        layer = self._called.get(before)
        if layer is None or _kind(layer) is None:
            return (
                None,
                f"they follow {_in_words(before, layer)}, not exactly a convolution or Linear called as a module",
            )
        reason = self._unfit_layer(layer, norm)
        if not reason and len(before.users) > 1:
            reason = "the answer of the layer before them is used elsewhere, too"
        return (None, reason) if reason else (layer, "")

    def _unfit_norm(self, norm: Any) -> str:
        from torch import nn

        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            return "not exactly nn.BatchNorm1d, nn.BatchNorm2d or nn.BatchNorm3d"
        if not self._calls[norm]:
            return "the forward pass never calls them as a module of their own"
        if self._calls[norm] > 1:
            return "they are called more than once"
        if norm.running_mean is None or norm.running_var is None:
            return "they keep no running statistics, so each batch has its own"
        return self._unfit_in_general(norm, "they")

    def _unfit_layer(self, layer: Any, norm: Any) -> str:
        from torch import nn

        if self._calls[layer] > 1:
            return "the layer before them is called more than once"
        channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        expected = 2 if isinstance(layer, nn.Linear) else layer.weight.ndim
        if channels != norm.num_features or self._dimensions.get(layer) != expected:
            return "they normalize another dimension than the outputs of the layer before them"
        if _kind(layer) == "transposed" and layer.groups > 1:
            return "the transposed convolution before them has groups"
        if not layer.weight.is_floating_point():
            return "the weights of the layer before them are not in floating point"
        return self._unfit_in_general(layer, "the layer before them")

    def _unfit_in_general(self, module: nn.Module, what: str) -> str:
        has = "have" if what == "they" else "has"
        if module in self._kept:
            return "keep names them" if what == "they" else f"keep names {what}"
        if module in self._own:
            self.unlike_class[module] = self._own[module]
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{what} {has} forward hooks, which would see other values"
        if module in self._own:
            return f"{what} cannot be folded: {self._own[module]}"
        if module in self._read:
            return f"the code also reads the weights of {'these' if what == 'they' else what}"
        if {id(parameter) for parameter in module.parameters()} & self._tied:
            return f"{what} {has} weights that another module shares"
        return ""


def _kind(layer: nn.Module) -> str | None:
    """How the layer is folded; None for one whose class may have a forward of its own."""
    from torch import nn

    if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return "convolution"
    if type(layer) in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        return "transposed"
    return "linear" if type(layer) is nn.Linear else None


def _fold(layer: Any, norm: Any) -> None:
    """Give the layer the weight and the bias of both, computed in float64."""
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

    def double(tensor: torch.Tensor | None, default: float) -> torch.Tensor:
        return torch.full_like(norm.running_var, default).double() if tensor is None else tensor.detach().double()

    weight = layer.weight
    arguments: list[Any] = [weight.detach().double(), double(layer.bias, 0.0)]
    arguments += [norm.running_mean.double(), norm.running_var.double(), norm.eps]
    arguments += [double(norm.weight, 1.0), double(norm.bias, 0.0)]
    if _kind(layer) == "linear":
        fused = fuse_linear_bn_weights(*arguments)
    else:
        arguments.append(_kind(layer) == "transposed")
        fused = fuse_conv_bn_weights(*arguments)
    layer.weight, layer.bias = (
        nn.Parameter(tensor.detach().to(weight.dtype), requires_grad=weight.requires_grad) for tensor in fused
    )


def _in_words(node: Any, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__
    if getattr(node, "op", "") in ("call_function", "call_method"):
        return str(getattr(node.target, "__name__", node.target))
    return "the model's input"


class _Folding:
    """Folds pairs of a batch norm and the layer before it, with a way back where the answers change."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model = model
        self._inputs = inputs
        self._answer = call(model, inputs)
        self._held: dict[nn.Module, tuple[Any, Any]] = {}
        self._identities: dict[nn.Module, nn.Module] = {}

    def fold(self, pairs: Sequence[tuple[nn.Module, Any]]) -> None:
        from torch import nn

        for norm, layer in pairs:
            self._held[layer] = layer.weight, layer.bias
            self._identities[norm] = nn.Identity()
            _fold(layer, norm)
        self.model = replace_modules(self.model, {norm: self._identities[norm] for norm, _ in pairs}.get)

    def undo(self, pairs: Sequence[tuple[nn.Module, Any]]) -> None:
        self.model = replace_modules(self.model, {self._identities.pop(norm): norm for norm, _ in pairs}.get)
        for _, layer in pairs:
            layer.weight, layer.bias = self._held.pop(layer)

    def problem(self) -> str:
        how_far = other_answers(self._answer, call(self.model, self._inputs))
        return how_far and (
            f"with them folded the answers {how_far}: the forward pass uses these layers in another way than by "
            f"calling them once each"
        )
