"""Recipes on the module that `optimize:` names, or that a `call:` calls, with the inputs that it gets there."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.calls.called_model import CalledModel
from pytest_modelopt.measuring.worker.calls.part import Part
from pytest_modelopt.measuring.worker.data import batches
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.modules.nested_values import in_words, tensors
from pytest_modelopt.optimizing.recipe import Context, Recipe, RecipeError
from pytest_modelopt.results.measurement import Coverage


@dataclass(frozen=True)
class Done:
    """What recipes have made: `model` of the module that they got, which stands in `whole` now, what is called."""

    whole: nn.Module
    model: nn.Module
    coverage: Coverage
    notes: tuple[str, ...]
    first_call_s: float
    answer: Any = None
    """Of `model`, to the inputs of the measured call."""


def part_of(variant: Variant, model: nn.Module) -> Part | None:
    """The module that recipes change; None where it is the model, which is called as it is."""
    return Part(model, variant.optimize) if variant.is_called_otherwise else None


def called_as(variant: Variant, model: nn.Module) -> tuple[str, ...]:
    """A note on what is called, where it is not the model itself."""
    if not isinstance(model, CalledModel):
        return ()
    changed = f", and recipes change its `{variant.optimize}`" if variant.optimize else ""
    return (f"what is called is `{model.name}(model, inputs)`{changed}",)


def optimized(whole: nn.Module, recipes: Sequence[Recipe], context: Context, part: Part | None) -> Done:
    """Apply the recipes to the part, or to the model itself where that is None. Raises RecipeError."""
    from pytest_modelopt.optimizing.apply import optimize

    if part is None:
        done = optimize(whole, recipes, context)
        return Done(done.model, done.model, done.coverage, (), done.first_call_s, done.answer)
    calls = part.inputs_of_calls(context.example_inputs)
    notes = part.notes(len(calls))
    done = optimize(part.module, recipes, context_of(part, context, calls))
    whole = part.put(done.model, context.example_inputs, " + ".join(recipe.canonical() for recipe in recipes))
    return Done(whole, done.model, part.within(done.coverage), notes, done.first_call_s)


def context_of_steps(model: nn.Module, function: Callable[..., Any] | None, context: Context) -> Context:
    """What recipes may use for a model that generates by a function of the project: where it cannot be called with the
    prompts alone, as one with an encoder, what it gets in the first step of the function."""
    if function is None or _runs_on(model, context.example_inputs):
        return context
    part = Part(CalledModel(model, lambda module, ids: function(module, ids, None), "step"), "")
    with contextlib.suppress(RecipeError):  # a step that calls modules below only
        calls = part.inputs_of_calls(context.example_inputs)
        return replace(context_of(part, context, calls), steps=context.steps)
    return context


def _runs_on(model: nn.Module, inputs: Inputs) -> bool:
    try:
        with torch.no_grad():
            call(model, inputs)
    except Exception:
        return False
    return True


def _require_same_arguments(part: Part, first: Inputs, later: Inputs) -> None:
    """For recipes that convert or compile, which ask for all calls."""
    one, other = ({*inputs} if isinstance(inputs, dict) else {len(tensors(inputs))} for inputs in (first, later))
    if one != other:
        raise RecipeError(
            f"{part.name} is called with other arguments from call to call (" + _apart(first, later) + "), and what "
            "converts or compiles takes one set of them: name by `optimize:` a module below that always gets the "
            "same, or take a recipe that keeps the module, such as int8-dynamic"
        )


def _apart(first: Inputs, later: Inputs) -> str:
    if isinstance(first, dict) and isinstance(later, dict):
        names = [f"`{name}`" for name in {**first, **later} if (name in first) != (name in later)]
        return f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} not in all of them"
    return f"{in_words(first)}; {in_words(later)}"


def context_of(part: Part, context: Context, calls: Sequence[Inputs]) -> Context:
    """What recipes may use for the part, `calls` being what it gets in the measured call."""

    def every_call() -> Iterator[Inputs]:
        others = itertools.islice(context.batches(), 1, None)  # the first is the measured call
        for inputs in itertools.chain(calls, map(part.first_inputs, others)):
            _require_same_arguments(part, calls[0], inputs)
            yield batches.in_order_of(calls[0], inputs)

    drawn, trained = context.calibration, context.training

    def train() -> Iterator[tuple[Inputs, Any]]:
        for inputs, targets in trained() if trained is not None else ():
            yield part.first_inputs(inputs), targets

    return replace(
        context,
        example_inputs=calls[0],
        calibration=None if drawn is None else lambda: map(part.first_inputs, drawn()),
        training=None if trained is None else train,
        targets_are_its_own=False,
        steps=None,
        varying=lambda: batches.varying_dimensions(every_call()),
        batches=every_call,
    )
