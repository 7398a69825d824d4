"""prune-structured: the channels, hidden units and attention heads of least importance go, and layers get smaller.

What is removed leaves the model the same function as with these units silenced, or is put back and named in a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pytest_modelopt.optimizing.describe import last_line, modules_in_words, total_bytes
from pytest_modelopt.optimizing.finetuning import Finetune, finetune
from pytest_modelopt.optimizing.modules.fused_path import fused_layers, turn_off_fused_path
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.pruning.structured.batch_norm_statistics import recalibrate
from pytest_modelopt.optimizing.pruning.structured.groups import (
    OF_HEADS,
    UNFOLLOWED,
    Protected,
    candidates,
    dependency_graph,
    last_followed,
)
from pytest_modelopt.optimizing.pruning.structured.heads import Attention, Found, find, remove
from pytest_modelopt.optimizing.pruning.structured.removal import REFUSED_BY_CODE, Surgery
from pytest_modelopt.optimizing.pruning.structured.taylor import accumulate_gradients, clear_gradients
from pytest_modelopt.optimizing.recipe import Applied, Context, Kept, LayerRecipe, RecipeError
from pytest_modelopt.results.figures import format_bytes

if TYPE_CHECKING:
    from torch import nn

_NAMED = 3
"""Layers that a note names."""


class PruneStructured(LayerRecipe):
    """Remove the share `ratio` of the channels of each layer, and at most this share of the heads of each attention.

    The least important go: those of smallest L2 norm over all layers they connect (`importance=magnitude`), or those
    without which the loss on `batches` batches of calibration data changes least to first order (`taylor`: the sum of
    |weight * gradient|, after Molchanov et al., arXiv:1906.10771). The channels that remain are a multiple of
    `round_to`, and at least `round_to`. What `keep` names keeps its output width, as do layers that share it.
    `finetune` names a function that trains the smaller model; without it the statistics of batch norm are recomputed on
    `batches` calibration batches, where there are any.
    """

    recipe_name: ClassVar[str] = "prune-structured"
    summary: ClassVar[str] = (
        "removes the least important channels, hidden units and attention heads; layers get smaller"
    )
    extra: ClassVar[str | None] = "pruning"
    requires: ClassVar[tuple[str, ...]] = ("torch_pruning",)
    one_step: ClassVar[bool] = True
    keeps: ClassVar[Kept] = "width"
    changes: ClassVar[tuple[str, ...]] = ("Linear", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention")

    ratio: float = Field(default=0.3, gt=0, lt=1, description="share of the channels of each layer that goes")
    round_to: int = Field(default=8, ge=1, description="widths stay multiples of it")
    heads: bool = Field(default=False, description="whole attention heads, too")
    importance: Literal["magnitude", "taylor"] = Field(
        default="magnitude", description="by norm, or by gradients on calibration data"
    )
    finetune: Finetune = ""
    batches: int = Field(default=4, ge=1, description="of calibration data, for importance=taylor and for batch norm")

    @property
    def calibrates(self) -> bool:
        return self.importance == "taylor" or bool(self.finetune)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        return _Pruning(self, model, context).run()


class _Pruning:
    """One application of the recipe: heads first, then channels, then the recovery."""

    def __init__(self, recipe: PruneStructured, model: nn.Module, context: Context) -> None:
        self._recipe = recipe
        self._model = model
        self._context = context
        self._excluded = context.kept
        self._notes: list[str] = []
        self._done: list[str] = []
        """What was removed, in words."""

    def run(self) -> Applied:
        recipe, inputs = self._recipe, self._context.example_inputs
        bytes_before = total_bytes(self._model)
        fused = fused_layers(self._model)
        needs_gradient = {name: parameter.requires_grad for name, parameter in self._model.named_parameters()}
        scored_by = self._prepare_scores()
        found = find(self._model, inputs, tied_parameters(self._model))
        self._remove_heads(found)
        unfused = turn_off_fused_path(self._model, fused)
        self._remove_units(found)
        clear_gradients(self._model)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(needs_gradient.get(name, parameter.requires_grad))
        if not self._done:
            return Applied(self._model, tuple(self._notes))
        sizes = f"the weights went from {format_bytes(bytes_before)} to {format_bytes(total_bytes(self._model))}"
        advice = "" if recipe.finetune else "; without further training the accuracy usually drops"
        summary = f"removed {' and '.join(self._done)}{scored_by}; {sizes}{advice}"
        notes = [summary, *self._recover(), *unfused, *self._notes]
        return Applied(self._model, tuple(notes))

    def _prepare_scores(self) -> str:
        """Gradients for Taylor importance; says for the note on how many batches they are."""
        if self._recipe.importance != "taylor":
            return ""
        if self._context.training is None:
            raise RecipeError(
                "prune-structured(importance=taylor) needs calibration data with targets: add "
                "`calibration: package.module:function`, which returns (inputs, targets), or use importance=magnitude"
            )
        if not self._context.targets_are_its_own:
            raise RecipeError(
                "prune-structured(importance=taylor) needs targets of the module that it changes, and those of the "
                "calibration data belong to the answer of the whole call: use importance=magnitude"
            )
        asked = self._recipe.batches
        seen = accumulate_gradients(self._model, self._context.training, asked)
        short = f" (of {asked} asked for: the calibration data holds no more)" if seen < asked else ""
        return f", chosen by the gradients of {seen} calibration batches{short}"

    def _remove_heads(self, found: Found) -> None:
        kept: dict[str, list[nn.Module]] = {}
        for reason, modules in found.refused.items():
            kept[reason] = list(modules)
        removed_heads = all_heads = 0
        alone = 0
        for attention in found.attentions:
            removed, reason = self._heads_to_remove(attention)
            if not reason:
                self._model, reason = remove(self._model, self._context.example_inputs, attention, removed)
            if reason:
                kept.setdefault(reason, []).extend(attention.layers)
                continue
            removed_heads += len(removed)
            all_heads += attention.heads
            alone += attention.heads - len(removed) == 1
        if removed_heads:
            self._done.append(f"{removed_heads:,} of {all_heads:,} attention heads")
        if alone:
            attentions = "1 attention is" if alone == 1 else f"{alone} attentions are"
            self._notes.append(f"{attentions} left with a single head")
        for reason, modules in kept.items():
            self._notes.append(f"{modules_in_words(dict.fromkeys(modules))} keep their attention heads: {reason}")

    def _heads_to_remove(self, attention: Attention) -> tuple[list[int], str]:
        """The heads to remove, and otherwise why none."""
        recipe = self._recipe
        if not recipe.heads:
            return [], "heads=false"
        if not self._excluded.isdisjoint([attention.replaces or attention.owner, *attention.projections]):
            return [], "they are named in keep"
        removed = attention.least_important(recipe.ratio, recipe.round_to, recipe.importance == "taylor")
        if removed:
            return removed, ""
        return [], (
            f"{attention.heads} heads of width {attention.width // attention.heads} are too few to lose at most "
            f"{recipe.ratio:.0%} and keep a multiple of {recipe.round_to} in width"
        )

    def _remove_units(self, found: Found) -> None:
        import torch_pruning

        recipe = self._recipe
        importance = torch_pruning.importance
        score = (
            importance.GroupTaylorImportance(normalizer=None)
            if recipe.importance == "taylor"
            else importance.GroupMagnitudeImportance(p=2, normalizer=None)
        )
        of_heads = [layer for attention in found.attentions for layer in attention.projections]
        try:
            graph = dependency_graph(self._model, self._context.example_inputs)
            groups = list(candidates(graph, self._model, score, Protected(self._model, of_heads, self._excluded)))
        except RecipeError:
            raise
        except Exception as error:
            layer = last_followed(self._model, error)
            raise RecipeError(
                f"prune-structured: torch-pruning cannot follow how the layers of {type(self._model).__name__} depend "
                f"on each other{f', after `{layer}`' if layer else ''}: {last_line(error)}; do otherwise what is done "
                "there (`chunk` can be followed where `split` cannot), or take low-rank, which changes no width"
            ) from error
        surgery = Surgery(graph, self._model, self._context.example_inputs)
        kept: dict[str, list[nn.Module]] = {}
        alone: list[nn.Module] = []
        removed_units = all_units = 0
        for group in groups:
            removed = [] if group.reason_to_keep else group.least_important(recipe.ratio, recipe.round_to)
            reason = group.reason_to_keep
            if not reason and not removed:
                reason = f"too narrow to lose {recipe.ratio:.0%} and keep a multiple of {recipe.round_to}"
            reason = reason or surgery.remove(group, removed)
            if reason:
                kept.setdefault(reason, []).extend(group.layers)
                continue
            removed_units += len(removed)
            all_units += group.width
            if group.width - len(removed) == 1:
                alone.extend(group.layers)
        if removed_units:
            self._done.insert(0, f"{removed_units:,} of {all_units:,} channels and hidden units")
        self._tell_kept_units(kept, alone, surgery.refusal)

    def _tell_kept_units(self, kept: dict[str, list[nn.Module]], alone: list[nn.Module], refusal: str) -> None:
        from torch import nn

        if alone:
            verb = "is" if len(alone) == 1 else "are"
            self._notes.append(f"{modules_in_words(alone)} {verb} left with a single channel")
        kept.pop(OF_HEADS, None)  # the notes on heads speak of them
        for reason, layers in kept.items():
            different = dict.fromkeys(layers)
            keep = "keeps its" if len(different) == 1 else "keep their"
            words = f"{modules_in_words(different)} {keep} width: {reason}"
            if reason == REFUSED_BY_CODE:
                words += f" ({refusal})"
            if reason == REFUSED_BY_CODE or reason.startswith(UNFOLLOWED):
                words += f"; {self._how_to_spare(layers)}"
            self._notes.append(words)
        recurrent = [module for module in self._model.modules() if isinstance(module, (nn.RNNBase, nn.RNNCellBase))]
        if recurrent:
            self._notes.append(f"{modules_in_words(recurrent)} left as they are: their inner widths are not pruned")

    def _how_to_spare(self, layers: list[nn.Module]) -> str:
        """What spares these layers by name; of many the first."""
        names = [name for name, module in self._model.named_modules() if module in layers]
        these = "them" if len(names) <= _NAMED else f"the first {_NAMED} of {len(names)}"
        return f"keep='{','.join(names[:_NAMED])}' spares {these} by name"

    def _recover(self) -> tuple[str, ...]:
        if not self._recipe.finetune:
            return recalibrate(self._model, self._context.calibration, self._recipe.batches)
        self._model, note = finetune(self._model, self._recipe.recipe_name, self._recipe.finetune, self._context)
        return (note,)
