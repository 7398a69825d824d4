"""Operations of a worker that apply a recipe to some layers of its model, each time on a copy, and score the result.

The model and its data stay in the worker: a trial costs the recipe, and a pass over some of the examples.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.protocol import Answers, Examples, LayerTrial, VariantError, error_text
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.answers.scoring import Scoring
from pytest_modelopt.measuring.worker.calls.called_model import alone
from pytest_modelopt.measuring.worker.calls.changed_part import Done, optimized, part_of
from pytest_modelopt.measuring.worker.memory import tensor_meter
from pytest_modelopt.optimizing.apply import RecipeDidNothing
from pytest_modelopt.optimizing.describe import type_name
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.optimizing.keeping import named_modules, with_those_that_share
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.results.layer_costs import LayerGroup
from pytest_modelopt.results.measurement import LayerCoverage

LEAST_EXAMPLES = 50
"""On so many a trial is scored, if there are as many, however long a pass takes."""


class LayerTrials(Scoring):
    """Trials of one recipe on the model that was loaded, which is not changed. `begin_trials` comes first."""

    _step = 1
    """Every how manieth batch is scored."""

    def begin_trials(self, examples: Examples, pass_s: float, keep: str) -> tuple[Answers, int | None]:
        """Score the model as it is, on as many batches as a pass of about `pass_s` seconds takes; and its bytes.

        `keep`: the file for what an unlabelled metric compares with.
        """
        self._set_threads_of_answers()
        self._step = self._batches_to_step(examples, pass_s)
        self._has_scored = True
        return self._scored(self.model, keep=Path(keep)), _held_bytes(self.model)

    def layer_groups(self, recipe: Expression) -> tuple[LayerGroup, ...]:
        """The layers that the recipe changes, applied to the whole model; those that share a weight are one group."""
        return _groups(self._seen_by_recipes(self.model), self._changed(self._applied(recipe)))

    def try_keeping(self, recipe: Expression, kept: Sequence[str], reference: str) -> LayerTrial:
        """The recipe on a copy of the model without the layers `kept`, and its answers."""
        self._set_threads_of_answers()
        try:
            done = self._applied(recipe.keeping(kept))
        except RecipeError as error:
            return LayerTrial(why=str(error), changes_nothing=isinstance(error, RecipeDidNothing))
        held = _held_bytes(done.whole)
        return LayerTrial(self._scored(done.whole, reference=Path(reference)), held)

    def _applied(self, recipe: Expression) -> Done:
        try:
            whole = copy.deepcopy(self.model)
        except Exception as error:
            raise VariantError(
                f"the model cannot be copied in its process, so its layers cannot be tried one by one: "
                f"{error_text(error)}"
            ) from error
        source_loading.seed_everything(self._variant.seed)
        context = self._whole_context(whole)
        return optimized(whole, recipe.steps, context, part_of(self._variant, whole))

    def _changed(self, done: Done) -> list[LayerCoverage]:
        """Layers with other weights, by the names that they have for the recipe."""
        prefix = f"{self._variant.optimize}." if self._variant.optimize else ""
        layers = done.coverage.layers
        return [replace(each, name=each.name.removeprefix(prefix)) for each in layers if each.changed_bytes]

    def _seen_by_recipes(self, whole: nn.Module) -> nn.Module:
        part = part_of(self._variant, whole)
        return whole if part is None else part.module

    def _scored(self, model: nn.Module, keep: Path | None = None, reference: Path | None = None) -> Answers:
        assert self._metric is not None
        data = self._data.evaluation()
        some = itertools.islice(data, None, None, self._step)
        slices = self._data.slices if self._step == 1 else 0
        with torch.inference_mode():
            answers = quality.answer(model, some, self._metric.scorer(keep, reference), self._device, slices)
        return replace(answers, data_fingerprint=data.fingerprint)

    def _batches_to_step(self, examples: Examples, pass_s: float) -> int:
        first = next(iter(self._data.evaluation()))
        inputs = self._device.take(first.inputs)
        with torch.inference_mode():
            quality.run(self.model, inputs)  # what is made at the first call is not the price of a pass
            start = time.perf_counter()
            quality.run(self.model, inputs)
        batches = examples.count / max(1, first.examples)
        step = math.ceil((time.perf_counter() - start) * batches / pass_s)
        return max(1, min(step, examples.count // max(LEAST_EXAMPLES, first.examples)))


def _groups(model: nn.Module, changed: Iterable[LayerCoverage]) -> tuple[LayerGroup, ...]:
    modules = dict(named_modules(model))
    groups: list[tuple[set[nn.Module], list[LayerCoverage]]] = []
    for layer in changed:
        if layer.name not in modules:  # the model itself, or what a recipe before has made
            continue
        module = modules[layer.name]
        found = next((members for sharing, members in groups if module in sharing), None)
        if found is None:
            groups.append((with_those_that_share(model, {module}), [layer]))
        else:
            found.append(layer)
    return tuple(
        LayerGroup(
            tuple(layer.name for layer in members),
            _kind(modules[members[0].name]),
            sum(layer.weight_bytes for layer in members),
            sum(layer.multiply_adds for layer in members),
        )
        for _, members in groups
    )


def _kind(module: Any) -> str:
    is_depthwise = isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels
    return f"{type_name(module)} (depthwise)" if is_depthwise else type_name(module)


def _held_bytes(model: nn.Module) -> int | None:
    try:
        return tensor_meter.Walk(alone(model), passes_runtimes=True).total_bytes()
    except tensor_meter.Unaccounted:
        return None
