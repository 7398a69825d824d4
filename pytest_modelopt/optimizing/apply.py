"""A recipe expression on a model: the steps in order, what each changed, and a check that the result still runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.bisection import explanation
from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.coverage import Snapshot, Weight, compare, is_changed, snapshot
from pytest_modelopt.optimizing.describe import author_name, known_base, last_line, type_name, types_in_words
from pytest_modelopt.optimizing.expression import unfit_for_file
from pytest_modelopt.optimizing.keeping import Keeping, with_kept
from pytest_modelopt.optimizing.modules.foreign_runtimes import held_by
from pytest_modelopt.optimizing.modules.hook_writes import told_hook_writes
from pytest_modelopt.optimizing.modules.linear_alike import LinearAlike
from pytest_modelopt.optimizing.modules.multiply_adds import multiply_adds
from pytest_modelopt.optimizing.modules.one_step import one_step, refuse_loop
from pytest_modelopt.optimizing.modules.sealed import explained, put_into_eval_mode, sealed_modules
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import Applied, Context, NoExamplesFirst, Recipe, RecipeError
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.optimizing.runtimes import unbatched
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Coverage, LayerCoverage, RecipeStep

if TYPE_CHECKING:
    from torch import nn


WHOLE_MODEL = ("compiled", "runtime")
"""Forms after which nothing else can be done: no way out for a single layer type."""


class RecipeDidNothing(RecipeError):
    """A step of the expression left every weight as it was: to measure it would compare a model with itself."""


@dataclass(frozen=True)
class Optimization:
    """The optimized model in eval mode, what was changed in it, and the notes of all steps."""

    model: nn.Module
    coverage: Coverage
    notes: tuple[str, ...] = ()
    first_call_s: float = 0.0
    """Of the check after the last step: compiling and other lazy preparation is in it."""
    answer: Any = None
    """Of that call."""


def optimize(model: nn.Module, recipes: Sequence[Recipe], context: Context) -> Optimization:
    """Apply the recipes in order. The model object that is given may be changed in place.

    Raises:
        RecipeDidNothing: if a step changed no weight.
        RecipeError: if the model does not run on the example inputs before or after a step, or a step failed.
    """
    import torch

    from pytest_modelopt.optimizing.runtimes.program_file_module import FromFile

    for recipe in recipes:
        _refuse_unfit(recipe, context)
    if isinstance(model, FromFile) and (why := unfit_for_file(recipes, PurePath(model.file).suffix)):
        raise RecipeError(why)
    put_into_eval_mode(model)
    sealed = sealed_modules(model)  # before any recipe: what one of them exports is its own
    _check_original(model, context.example_inputs)
    alike = LinearAlike(model, context.example_inputs)
    of_linear = [recipe for recipe in recipes if "Linear" in recipe.changes and recipe.gives != "low precision"]
    taken = alike.lend() if of_linear else ()
    original = before = snapshot(model)
    counted = multiply_adds(model, context.example_inputs)
    reached: frozenset[str] = frozenset()
    steps: list[RecipeStep] = []
    layers: tuple[LayerCoverage, ...] = ()
    first_call_s, answer = 0.0, None
    for recipe in recipes:
        try:
            model, told_of_training, after = _trained(recipe, model, before, context)
            if after is not before:
                original = after if original is before else original.trained(before, after)
                before = after
            torch.manual_seed(context.seed)
            applied, layers, first_call_s, answer = _step(recipe, model, before, context, counted)
        except RecipeError as error:
            told = explained(error, recipe.recipe_name, sealed, did_nothing=isinstance(error, RecipeDidNothing))
            if told is error or (recipe.calibrates and context.calibration is None):
                raise
            # Where the error itself is no longer told, its traceback would only contradict what is.
            raise told from (error if str(told).startswith(str(error)) else None)
        reached |= applied.reached or frozenset()
        unlike_class = {author_name(name): why for name, why in applied.unlike_class.items()}
        notes = (*(taken if of_linear and recipe is of_linear[0] else ()), *applied.notes, *told_of_training)
        changed_bytes = sum(layer.changed_bytes for layer in layers)
        steps.append(RecipeStep(recipe.canonical(), changed_bytes, before.weight_bytes, notes, unlike_class))
        if before is not original:
            layers = compare(original, applied.model, reached, counted, source=model)
        model = applied.model
        if len(steps) < len(recipes):
            before = snapshot(model)
    coverage = Coverage(layers, tuple(steps))
    if not any(recipe.gives in WHOLE_MODEL for recipe in recipes):  # what is compiled would be compiled once more
        alike.give_back(model)
    return Optimization(model, coverage, tuple(note for step in steps for note in step.notes), first_call_s, answer)


def _refuse_unfit(recipe: Recipe, context: Context) -> None:
    reason = recipe.missing() or recipe.unfit(context.device)
    if reason:
        raise RecipeError(reason)


def _trained(
    recipe: Recipe, model: nn.Module, before: Snapshot, context: Context
) -> tuple[nn.Module, tuple[str, ...], Snapshot]:
    """The model after a training that comes before the recipe, the notes on it, and the weights from there on."""
    if not recipe.calibrates or not before.weights:
        return model, (), before
    context = with_kept(recipe, model, context)
    keeping = Keeping(recipe, model, context)
    trained, notes = recipe.train(model, context)
    if not notes:
        return model, (), before
    keeping.check(compare(before, trained))
    return trained, notes, snapshot(trained)


def _step(
    recipe: Recipe, model: nn.Module, before: Snapshot, context: Context, counted: Mapping[str, int]
) -> tuple[Applied, tuple[LayerCoverage, ...], float, Any]:
    """What one recipe made of the model, checked; what it changed, and the seconds and the answer of the first call."""
    if not before.weights:
        raise RecipeDidNothing(_nothing_message(recipe, before, (), model))
    context = with_kept(recipe, model, context)
    keeping = Keeping(recipe, model, context)
    applied = _apply(recipe, model, context)
    reached = None if applied.reached is None else frozenset(map(author_name, applied.reached))
    applied = replace(applied, model=put_into_eval_mode(applied.model), reached=reached)
    start = time.perf_counter()
    steps = context.steps if recipe.gives == "runtime" else None
    inputs = context.example_inputs if steps is None else steps.prompts
    answer = _check_forward(applied.model, inputs, recipe)
    first_call_s = time.perf_counter() - start
    layers = compare(before, applied.model, reached or frozenset(), counted, source=model)
    unchanged = {layer.name for layer in layers if not layer.changed_bytes}
    applied = replace(applied, notes=(*applied.notes, *keeping.notes(), *_tied_notes(recipe, before, unchanged)))
    if not any(layer.changed_bytes for layer in layers) and not is_changed(before, applied.model, model):
        raise RecipeDidNothing(_nothing_message(recipe, before, applied.notes, applied.model))
    keeping.check(layers)
    return applied, layers, first_call_s, answer


def _tied_notes(recipe: Recipe, before: Snapshot, unchanged: set[str]) -> list[str]:
    """By name, the weights that several modules share and that a recipe for such layers left alone."""
    sharing: dict[str, list[Weight]] = {}
    for weight in before.weights:
        if weight.owner:
            sharing.setdefault(weight.owner, []).append(weight)
    by_module = {weight.module: weight for weight in reversed(before.weights)}
    return [
        f"the weight that {_enumerated([f'`{each.module}`' for each in (by_module[owner], *others)])} share "
        f"({format_bytes(by_module[owner].nbytes)}) stays as it is"
        for owner, others in sharing.items()
        if owner in unchanged and {by_module[owner].type, *(each.type for each in others)} & set(recipe.changes)
    ]


def _apply(recipe: Recipe, model: nn.Module, context: Context) -> Applied:
    try:
        if context.steps is not None and recipe.gives == "runtime":
            from pytest_modelopt.optimizing.runtimes.exporting_steps import export_steps

            return export_steps(recipe, model, context, context.steps)
        if not recipe.one_step:
            return recipe.apply(model, context)
        with one_step(model, context.example_inputs) as notes:
            if recipe.gives in WHOLE_MODEL:
                refuse_loop(model, context.example_inputs, recipe.recipe_name)
            applied = recipe.apply(model, context)
        return replace(applied, notes=(*applied.notes, *notes)) if recipe.gives in WHOLE_MODEL else applied
    except NoExamplesFirst as error:
        if why := unbatched.told(model, context.example_inputs):
            raise NoExamplesFirst(f"{recipe.canonical()}: {why}") from error
        raise
    except RecipeError:
        raise
    except Exception as error:
        by_hooks = told_hook_writes(model, context.example_inputs)
        told = f"{recipe.canonical()} failed: {last_line(error)}"
        raise RecipeError(f"{told}. {by_hooks}" if by_hooks else told) from error


def _check_original(model: nn.Module, inputs: Inputs) -> None:
    error, _ = _called(model, inputs)
    if error:
        raise RecipeError(
            f"the model does not run on its example inputs, before any recipe: {last_line(error)}"
        ) from error


def _check_forward(model: nn.Module, inputs: Inputs, recipe: Recipe) -> Any:
    """What it answers."""
    error, answer = _called(model, inputs)
    if error:
        raise RecipeError(
            f"after {recipe.canonical()} the model no longer runs on its example inputs"
            f"{_where(model, inputs)}: {last_line(error)}{explanation(error)}"
        ) from error
    return answer


def _called(model: nn.Module, inputs: Inputs) -> tuple[Exception | None, Any]:
    """What a call raised, and what it answered."""
    import torch

    try:
        with torch_ao.quiet(), torch.no_grad():
            return None, call(model, inputs)
    except Exception as error:
        return error, None


def _where(model: nn.Module, inputs: Inputs) -> str:
    """' (in encoder.fc, a Linear)' if a second run fails in a module that can be told; '' otherwise."""
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    entered: list[Any] = []
    enter = register_module_forward_pre_hook(lambda module, _: entered.append(module))
    leave = register_module_forward_hook(lambda _module, _inputs, _output: entered.pop() and None)
    try:
        _called(model, inputs)
    finally:
        enter.remove()
        leave.remove()
    names = {id(module): name for name, module in model.named_modules()}
    if not entered or not names.get(id(entered[-1])):
        return ""
    return f" (in {names[id(entered[-1])]}, of type {type_name(entered[-1])})"


def _nothing_message(recipe: Recipe, before: Snapshot, notes: Sequence[str], model: nn.Module) -> str:
    name = recipe.recipe_name
    layers = before.layers()
    if not layers:
        return f"{name} changed nothing: the model holds no weights{_foreign(model)}"
    parts = [
        f"{name} changed nothing: the model holds {types_in_words((kind, size) for _, kind, size in layers)}",
    ]
    has_fitting = bool({weight.type for weight in before.weights} & set(recipe.changes))
    if has_fitting and notes:
        parts.extend(notes)
    elif recipe.changes:
        parts.append(f"{name} changes {_enumerated(recipe.changes)} only")
    bases = {type_name(module): known_base(module) for module in model.modules()}
    fitting = _fitting(recipe, {kind: bases.get(kind, "") for _, kind, _ in layers})
    if not fitting and not has_fitting:
        fitting = _converting()
    return "; ".join([*parts, *fitting])


def _foreign(model: nn.Module) -> str:
    """That another runtime has the weights, where the model wraps one."""
    attribute, runtime = held_by(model)
    if not attribute:
        return ""
    return (
        f" in torch: `{attribute}` is an object of {runtime}, which keeps its weights to itself; apply the recipe to "
        f"the torch model before it is handed to {runtime}"
    )


def _fitting(recipe: Recipe, bases: Mapping[str, str]) -> list[str]:
    """For each layer type that this recipe leaves alone, or that it was derived from, the recipes that would change it.

    `bases` are these types, each with the class of torch that it was derived from, or ''.
    """
    told = []
    for kind, base in bases.items():
        known = base or kind
        names = [name for name, other in RECIPES.items() if known in other.changes and other.gives not in WHOLE_MODEL]
        if not recipe.changes or kind in recipe.changes or not names:
            continue
        derived = f"{kind} is derived from {base}, for which recipes look: " if base else ""
        told.append(f"{derived}{known} is changed by {_enumerated(names[:3])}")
    return told


def _converting() -> list[str]:
    """What is left for models of layers that no recipe knows, such as those of Keras."""
    names = [name for name, other in RECIPES.items() if other.gives == "runtime" and not other.changes]
    return [f"{_enumerated(names)} convert a whole model, whatever its layers are"]


def _enumerated(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
