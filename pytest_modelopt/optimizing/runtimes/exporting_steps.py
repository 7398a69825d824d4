"""Export of a model that generates: one step, whose inputs and outputs are the tensors of the cache, never the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import starmap
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.describe import author_name
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.nested_values import PLAIN, leaves, tensors
from pytest_modelopt.optimizing.modules.one_step import refuse_loop
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe, RecipeError, Steps
from pytest_modelopt.optimizing.runtimes.comparing import LARGEST_DIFFERENCE, difference

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.recipe import Step
    from pytest_modelopt.optimizing.runtimes.exported_step_module import CacheForm, Pass
    from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule

LEAST = 2
"""Tokens in the cache and behind it with which a program for any number of both is traced: torch.export takes a 1 for a
constant."""
TWICE = (
    "the model makes its first call otherwise than those with a cache, so there are two programs, one for prompts and "
    "one for single tokens, and each holds all weights"
)


@dataclass(frozen=True)
class _Seen:
    """Calls of the model on the prompts: the tensors of the cache behind `prompts`, one token later, and behind the
    first half; along which dimensions they grow."""

    prompts: torch.Tensor
    form: CacheForm
    token: torch.Tensor
    """The next one, (sequences, 1)."""
    held: list[torch.Tensor]
    later: list[torch.Tensor]
    growing: tuple[frozenset[int], ...]


def export_steps(recipe: Recipe, model: nn.Module, context: Context, steps: Steps) -> Applied:
    """What the recipe makes of the model's step: one program, where that can make the first call, too, or two.

    Raises:
        RecipeError: the cache has a form that no program takes, or the step cannot be converted.
    """
    if recipe.fixes_sizes:
        raise RecipeError(
            f"{recipe.recipe_name} converts for fixed sizes, and the cache of a model that generates grows with each "
            "step: onnxruntime and openvino leave its size open"
        )
    from pytest_modelopt.optimizing.runtimes.exported_step_module import Pass

    step = steps.make(model)
    context = replace(context, steps=None, calibration=steps.calibration)
    seen = _seen(step, steps.prompts, recipe.recipe_name)
    named: type[Pass] = type(type(model).__name__, (Pass,), {})  # errors name what the user knows
    traced = named(model, step, seen.form).eval()
    refuse_loop(traced, (seen.token, *seen.held), recipe.recipe_name)
    whole = _whole(recipe, traced, context, seen)
    return _in_two(recipe, traced, context, seen) if whole is None else whole


def _seen(step: Step, prompts: torch.Tensor, recipe_name: str) -> _Seen:
    import torch

    from pytest_modelopt.optimizing.runtimes.exported_step_module import CacheForm

    with torch.no_grad(), unfused():
        logits, cache = step(prompts, None)
        held, form, rest = _copied(cache), CacheForm(cache), _rest(cache)
        token = logits.argmax(dim=-1, keepdim=True)
        _, longer = step(token, form.filled(_copied(held)))
        later = _copied(longer)
        of_twice = tensors(step(prompts.repeat(2, 1), None)[1])
    if not held or len(held) != len(later) or len(held) != len(of_twice):
        raise RecipeError(
            f"{recipe_name} exports one step with the cache as its inputs and outputs, and this cache holds "
            f"{len(held)} tensors after the prompt and {len(later)} one token later: keep the same tensors from step "
            "to step, or take a recipe that stays in torch, such as int8-dynamic"
        )
    if changed := list(filter(None, starmap(_changed, zip(rest, _rest(longer), strict=False)))):
        raise RecipeError(
            f"{recipe_name} exports one step, whose program takes tensors only, and the cache holds a value that is no "
            f"tensor and changes with the step ({changed[0]}): keep it in a tensor, or take a recipe that stays in "
            "torch, such as int8-dynamic"
        )
    for one, two in zip(held, of_twice, strict=True):
        if one.ndim and _apart(one, two) != {0}:
            raise RecipeError(
                f"{recipe_name} exports one step for any number of sequences, and the cache holds a tensor of shape "
                f"{tuple(one.shape)} whose first dimension is not that of {len(prompts)} sequences: keep the sequences "
                "first in each tensor, or take a recipe that stays in torch, such as int8-dynamic"
            )
    return _Seen(prompts, form, token, held, later, tuple(starmap(_apart, zip(held, later, strict=True))))


def _whole(recipe: Recipe, traced: Pass, context: Context, seen: _Seen) -> Applied | None:
    """One program for any number of tokens behind a cache of any length, an empty one included; None where the model
    has a call of its own for prompts, or the program does not answer as it does."""
    import torch

    from pytest_modelopt.optimizing.runtimes.exported_step_module import ExportedStep

    ids, half = seen.prompts, seen.prompts.shape[1] // 2
    if half < LEAST or any(len(dimensions) != 1 for dimensions in seen.growing):
        return None
    empty = [tensor.narrow(min(along), 0, 0) for tensor, along in zip(seen.held, seen.growing, strict=True)]
    with torch.no_grad(), unfused():
        expected = traced(ids)
        try:
            held = _copied(traced(ids[:, :half])[1:])
            answers = traced(ids, *empty), traced(ids[:, half:], *held)
        except Exception:
            return None
    if any(difference(answer, expected) > LARGEST_DIFFERENCE for answer in answers):
        return None
    others = ((ids, *empty), (seen.token, *seen.held))
    lengths = (frozenset({1}), *seen.growing)
    try:
        applied = _applied(recipe, traced, context, (ids[:, half:], *held), lengths, others, half)
    except RecipeError:
        return None
    first = [tensor[:1] for tensor in empty]
    return replace(applied, model=ExportedStep(_program(applied), None, seen.form, first))


def _in_two(recipe: Recipe, traced: Pass, context: Context, seen: _Seen) -> Applied:
    from pytest_modelopt.optimizing.runtimes.exported_step_module import ExportedStep

    others = ((seen.token, *seen.later),)
    lengths = (frozenset[int](), *seen.growing)
    step = _applied(recipe, traced, context, (seen.token, *seen.held), lengths, others, seen.prompts.shape[1])
    prompt = _applied(recipe, traced, context, (seen.prompts,), (frozenset(),), ())
    notes = dict.fromkeys((*prompt.notes, *step.notes, TWICE))
    model = ExportedStep(_program(step), _program(prompt), seen.form, ())
    return replace(step, model=model, notes=tuple(notes))


def _applied(
    recipe: Recipe,
    traced: Pass,
    context: Context,
    inputs: tuple[torch.Tensor, ...],
    lengths: tuple[frozenset[int], ...],
    others: tuple[tuple[torch.Tensor, ...], ...],
    behind: int = 0,
) -> Applied:
    """The recipe on a pass with these inputs, whose sizes along `lengths` vary; `behind`: tokens in the cache."""
    import torch

    drawn = context.calibration

    def calibration() -> Iterator[Any]:
        for ids in drawn() if drawn is not None else ():
            with torch.no_grad(), unfused():
                held = traced(ids[:, :behind])[1:] if behind else ()
            yield (ids[:, behind : behind + inputs[0].shape[1]], *held)

    own = replace(
        context,
        example_inputs=inputs,
        calibration=None if drawn is None else calibration,
        varying=lambda: lengths,
        batches=lambda: (inputs, *others),
        others=others,
    )
    applied = recipe.apply(traced, own)
    reached = None if applied.reached is None else frozenset(map(author_name, applied.reached))
    return replace(applied, reached=reached)


def _program(applied: Applied) -> RuntimeModule:
    from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule

    assert isinstance(applied.model, RuntimeModule)
    return applied.model


def _copied(cache: Any) -> list[torch.Tensor]:
    """The tensors of a cache, into which a step may write, in memory of their own and in the order of a program's."""
    import torch

    return [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors(cache)]


def _apart(one: torch.Tensor, other: torch.Tensor) -> frozenset[int]:
    """The dimensions in which their sizes differ."""
    sizes = zip(one.shape, other.shape, strict=True) if one.ndim == other.ndim else ()
    return frozenset(dimension for dimension, (own, its) in enumerate(sizes) if own != its)


def _rest(cache: Any) -> list[Any]:
    return [leaf for leaf in leaves(cache) if isinstance(leaf, PLAIN)]


def _changed(before: Any, after: Any) -> str:
    return "" if type(before) is type(after) and before == after else f"from {before!r} to {after!r}"
