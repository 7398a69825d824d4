"""The promises of a recipe, held on small models: first in this process, then in workers as in a run."""

from __future__ import annotations

import builtins
import contextlib
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.variant import SEED, Variant, environment_now
from pytest_modelopt.optimizing.apply import RecipeDidNothing, optimize
from pytest_modelopt.optimizing.calling import call, fresh
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe, RecipeError
from pytest_modelopt.optimizing.registry import RECIPES
from pytest_modelopt.results.files.locked_folders import held_folder
from pytest_modelopt.results.metric import MetricSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_modelopt.optimizing.apply import Optimization
    from pytest_modelopt.results.observations import Observations

_BATCH = 4
_STEP_LIMIT_S = 300.0
_MODELS = "pytest_modelopt.measuring.worker.small_models"
_ALWAYS_THERE = {"torch", "pydantic", "pytest_modelopt"}


@dataclass(frozen=True)
class _Refused:
    """Why a recipe left a model as it was."""

    reason: str


def broken_promises(recipe: Recipe, kinds: Collection[str]) -> list[str]:
    """A sentence for each promise that the recipe breaks on these models; or one that says why none can be held."""
    name = recipe.recipe_name
    lacking = recipe.missing() or recipe.unfit("cpu")
    if lacking:
        return [f"{name} cannot be checked on this machine: {lacking}"]
    broken, refused = _spelling(recipe), []
    for kind in kinds:
        found = _on(recipe, kind)
        if isinstance(found, _Refused):
            refused.append(f"{kind}: {found.reason}")
        else:
            broken += [f"{name} on the {kind}: {told}" for told in found or _in_workers(recipe, kind)]
    if len(refused) == len(kinds):
        broken.append(f"{name} was applied to none of the models, so nothing else was checked: {'; '.join(refused)}")
    return list(dict.fromkeys(broken))


def _spelling(recipe: Recipe) -> list[str]:
    """Whether its parameters can be written in an expression."""
    name, text = recipe.recipe_name, recipe.canonical()
    known = RECIPES.get(name)
    RECIPES[name] = type(recipe)
    try:
        again = parse(text).steps
        return [] if again == (recipe,) else [f"{name}: {text!r}, its expression, is read as other parameters"]
    except RecipeError as error:
        return [f"{name}: {text!r}, its expression, cannot be read: {error}"]
    finally:
        del RECIPES[name]
        if known is not None:
            RECIPES[name] = known


# --- in this process -------------------------------------------------------------------------------------------------


def _on(recipe: Recipe, kind: str) -> list[str] | _Refused:
    import torch

    from pytest_modelopt.measuring.worker import small_models
    from pytest_modelopt.measuring.worker.settings import settings
    from pytest_modelopt.measuring.worker.source_loading import same_random_state

    make: Callable[[], nn.Module] = getattr(small_models, kind)
    inputs, targets = getattr(small_models, f"{kind}_data")()
    threads = torch.get_num_threads()
    with same_random_state():
        try:
            torch.set_num_threads(1)
            bystander, before = make(), settings()
            was = _seen(bystander, inputs)
            told = _applied(recipe, make, inputs, targets, was)
            changed = [key for key, value in settings().items() if before.get(key, value) != value]
            if changed:
                return [f"it changes a setting of the whole process: {', '.join(changed)}; put back what it was"]
            if _same(was, _seen(bystander, inputs)) or isinstance(told, _Refused):
                return told
            return ["it changes a model that it was not given: change the model's own modules only, and no class"]
        finally:
            torch.set_num_threads(threads)


def _applied(
    recipe: Recipe, make: Callable[[], nn.Module], inputs: torch.Tensor, targets: torch.Tensor, was: Observations
) -> list[str] | _Refused:
    import torch

    given, answers = fresh(inputs), fresh(targets)
    assert isinstance(given, torch.Tensor)
    assert isinstance(answers, torch.Tensor)
    batches = [(given[at : at + _BATCH], answers[at : at + _BATCH]) for at in range(0, len(given), _BATCH)]
    context = Context(batches[0][0], lambda: iter([x for x, _ in batches]), SEED, training=lambda: iter(batches))
    _seed()
    with _project_imports() as imported:
        try:
            applied: object = recipe.apply(make(), context)
        except RecipeError as error:
            return _Refused(str(error)) if str(error).strip() else ["its RecipeError says nothing: say why not"]
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            return [f"apply() raises {told}; raise a RecipeError that says why it cannot be applied"]
    if not isinstance(applied, Applied):
        return [f"apply() returns {type(applied).__name__}, and not pytest_modelopt.Applied"]
    if not (torch.equal(given, inputs) and torch.equal(answers, targets)):
        return ["it writes into the inputs that it is given, on which the original is measured, too: copy them"]
    undeclared = sorted(imported - _ALWAYS_THERE - set(recipe.requires))
    broken = [f"it imports {package}, which `requires` does not name" for package in undeclared]
    nowhere = sorted((applied.reached or frozenset()) - dict(make().named_modules()).keys())
    if nowhere:
        broken.append(f"`reached` names {', '.join(nowhere)}, which the model that it was given does not have")
    try:
        return broken + _of_variants(recipe, [_optimized(recipe, make, context) for _ in range(2)], make(), inputs, was)
    except RecipeDidNothing as error:
        holds = {type(module).__name__ for module in make().modules()}
        if applied.notes or (recipe.changes and not holds & set(recipe.changes)):
            return broken or _Refused(str(error))
        return [*broken, f"it changes nothing and does not say why, by a note or a RecipeError ({error})"]
    except RecipeError as error:
        return [*broken, str(error)]


def _optimized(recipe: Recipe, make: Callable[[], nn.Module], context: Context) -> Optimization:
    model = make()
    _seed()
    return optimize(model, (recipe,), context)


def _of_variants(
    recipe: Recipe, made: list[Optimization], original: nn.Module, inputs: torch.Tensor, was: Observations
) -> list[str]:
    """What two variants, made alike, show of the promises."""
    from pytest_modelopt.optimizing.runtimes.runtime_module import HoldsPrograms

    one, other = (_seen(each.model, inputs) for each in made)
    broken = []
    if not one.varies and not _same(one, other):
        broken.append("it makes another variant when it is applied again with the same seed: draw with `context.seed`")
    reached = {layer.name: layer.type for layer in made[0].coverage.layers if layer.changed_bytes}
    if recipe.changes and not set(recipe.changes) & set(reached.values()):
        kinds = ", ".join(sorted(set(reached.values())))
        broken.append(f"it changes weights of {kinds}, and `changes` names {', '.join(recipe.changes)} only")
    if _same(was, one) and not one.compiled and not isinstance(made[0].model, HoldsPrograms):
        broken.append(f"it claims to reach {', '.join(sorted(reached))}, and the model is as it was")
    return broken


def _seen(model: nn.Module, inputs: torch.Tensor) -> Observations:
    from pytest_modelopt.measuring.worker.observe import observe

    return observe(model, lambda: call(model, inputs[:_BATCH]), {}, (), {})


def _same(one: Observations, other: Observations) -> bool:
    """The same modules with the same bits, as far as they can be seen, and the same answers."""
    return (one.digest, one.answers) == (other.digest, other.answers)


def _seed() -> None:
    from pytest_modelopt.measuring.worker.source_loading import seed_everything

    seed_everything(SEED)


@contextlib.contextmanager
def _project_imports() -> Iterator[set[str]]:
    """Collects the installed packages that code of the project imports meanwhile, by an import statement."""
    found: set[str] = set()
    real = builtins.__import__

    def watched(name: str, *args: Any, **kwargs: Any) -> Any:
        module = real(name, *args, **kwargs)
        importer = sys._getframe(1).f_code.co_filename
        is_relative = bool(args[3] if len(args) > 3 else kwargs.get("level", 0))
        package = "" if is_relative else name.partition(".")[0]
        if not importer.startswith((*_installed(), str(Path(__file__).parents[2]), "<")) and _is_installed(package):
            found.add(package)
        return module

    builtins.__import__ = watched
    try:
        yield found
    finally:
        builtins.__import__ = real


@cache
def _installed() -> tuple[str, ...]:
    """Folders of installed packages, and of Python's own modules."""
    return tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))


def _is_installed(package: str) -> bool:
    if not package or package in sys.stdlib_module_names:
        return False
    spec = find_spec(package)
    places = [*([spec.origin] if spec.origin else []), *(spec.submodule_search_locations or ())] if spec else []
    return any(place.startswith(_installed()) for place in places)


# --- in workers ------------------------------------------------------------------------------------------------------


def _in_workers(recipe: Recipe, kind: str) -> list[str]:
    """The variant is made, saved, and loaded in a fresh process, where it must answer as before."""
    variant = Variant(
        model=f"{_MODELS}:{kind}",
        recipe=Expression.of((recipe,)),
        data=f"{_MODELS}:{kind}_data",
        calibration=f"{_MODELS}:{kind}_data",
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=tuple(path for path in sys.path if path),
        working_directory=str(Path.cwd()),
        environment=environment_now(),
        batch_size=_BATCH,
    )
    with held_folder() as folder, contextlib.ExitStack() as ended:
        files = {"path": str(folder / "model"), "inputs_file": str(folder / "inputs")}

        def ask(worker: Worker, operation: str, **arguments: Any) -> Any:
            return worker.request(operation, limit_s=_STEP_LIMIT_S, **arguments)

        try:
            first = Worker(variant, folder, "first")
            ended.callback(first.close)
            for operation in ("load", "optimize"):
                ask(first, operation)
            answered = ask(first, "answer")
            ask(first, "save", path=files["path"])
            ask(first, "save_inputs", path=files["inputs_file"])
            fresh_one = Worker(variant.original, folder, "fresh")
            ended.callback(fresh_one.close)
            ask(fresh_one, "reload", **files)
            if not answered.is_like(ask(fresh_one, "answer")):
                return ["saved and loaded in another process, the variant answers differently"]
        except WorkerFailed as failed:
            return [f"in a worker, as in a run: {failed.message}"]
    return []
