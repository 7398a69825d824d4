"""prune-unstructured: the weights of smallest magnitude become zero; shapes stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.describe import modules_in_words, owners_in_words, weight_owners
from pytest_modelopt.optimizing.modules.own_behavior import named, reparametrized
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.recipe import Applied, Context, LayerRecipe

if TYPE_CHECKING:
    from torch import nn

OTHER_WEIGHT = "they compute with another tensor than their parameter `weight`"


class PruneUnstructured(LayerRecipe):
    """Set the share `ratio` of the weights of smallest magnitude to zero, within each layer or over all layers."""

    recipe_name: ClassVar[str] = "prune-unstructured"
    summary: ClassVar[str] = "sets the smallest weights to zero; shapes stay, so alone it saves neither time nor memory"
    changes: ClassVar[tuple[str, ...]] = (
        "Linear",
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "ConvTranspose1d",
        "ConvTranspose2d",
        "ConvTranspose3d",
    )

    ratio: float = Field(default=0.5, gt=0, lt=1, description="share of the weights that becomes zero")
    scope: Literal["layer", "global"] = Field(
        default="layer", description="that share of each layer, or of all together"
    )

    def apply(self, model: nn.Module, context: Context) -> Applied:
        import torch
        from torch.nn.utils import prune

        tied = tied_parameters(model)
        layers: list[nn.Module] = []
        kept: dict[str, list[nn.Module]] = {}
        own: dict[nn.Module, str] = {}
        for module in context.free(module for _, module in weight_owners(model)):
            reason = _reason_to_keep(module, tied)
            if reason is None:
                layers.append(module)
            elif reason:
                kept.setdefault(reason, []).append(module)
                if reason == OTHER_WEIGHT or reparametrized(module):
                    own[module] = reason
        before = {layer: layer.get_parameter("weight").detach() for layer in layers}
        for layer, weight in before.items():
            layer.get_parameter("weight").data = weight.contiguous()  # torch views it as one row
        if layers and self.scope == "global":
            weights = [(layer, "weight") for layer in layers]
            prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=self.ratio)
        elif layers:
            for layer in layers:
                prune.l1_unstructured(layer, "weight", amount=self.ratio)  # type: ignore[no-untyped-call]
        for layer in layers:
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
            pruned = layer.get_parameter("weight")
            pruned.data = torch.empty_like(before[layer]).copy_(pruned.data)  # laid out in memory as before
            # `remove` puts the weight behind the bias; in its old place the saved file is the original's, to the byte.
            others = {name: layer._parameters.pop(name) for name in list(layer._parameters) if name != "weight"}
            layer._parameters.update(others)
        notes = [f"{owners_in_words(modules)} left as they are: {reason}" for reason, modules in kept.items()]
        if layers:
            notes.insert(0, _zeros_note(layers))
        return Applied(model, tuple(notes), unlike_class=named(model, own))


def _reason_to_keep(module: nn.Module, tied: set[int]) -> str | None:
    """None to prune the module, '' to pass over it in silence, or why it is left alone."""
    from torch import nn

    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        weight = module._parameters.get("weight")
        if reason := reparametrized(module):
            return reason
        if weight is None or module.weight is not weight:
            return OTHER_WEIGHT
        if id(weight) in tied:
            return "another module shares their weight"
        return None
    if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)):
        return "prune-unstructured changes Linear and convolutions only"
    return ""


def _zeros_note(layers: list[nn.Module]) -> str:
    weights = [layer.get_parameter("weight") for layer in layers]
    count = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return (
        f"{zeros:,} of {count:,} weights in {modules_in_words(layers)} are zero ({zeros / count:.1%}); the shapes are "
        f"unchanged, so dense kernels do the same work and zeros take as much room in the file as other numbers"
    )
