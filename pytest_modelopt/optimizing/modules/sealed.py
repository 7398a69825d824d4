"""Modules that torch.jit or torch.export has sealed: they run, and their layers can be neither replaced nor traced."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import nn

SCRIPT = "a TorchScript module (torch.jit.script, trace or freeze), whose layers can be neither traced nor replaced"
EXPORTED = "the module of an exported program (torch.export), whose layers are operators in its graph"
WAY_OUT = "return the model from the factory as it is before that, and do that to what the recipe makes of it"


_NAMED = 3
_MODELESS = re.compile(r"Calling (train|eval)\(\) is not supported")
_UNTRACED = re.compile(r"needs a model that torch\.export can trace|torch\.compile cannot trace")


def kind_of(module: nn.Module) -> str:
    """What sealed this very module, in words; '' for all others."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return SCRIPT
    # torch.export gives each of its modules methods that refuse: so do the graphs of torch.ao that come from it.
    return EXPORTED if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module) else ""


def sealed_modules(model: nn.Module) -> dict[str, str]:
    """What sealed them, by name, of the outermost ones."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if not any(not outer or name.startswith(f"{outer}.") for outer in found) and (kind := kind_of(module)):
            found[name] = kind
    return found


def in_training(model: nn.Module) -> list[nn.Module]:
    """The modules in training mode, those aside that were sealed in the mode in which they were."""
    return [module for module in _open(model) if module.training]


def put_into_eval_mode(model: nn.Module) -> nn.Module:
    """The model, which need not know `eval`, in eval mode as far as it can be told to."""
    import torch

    if EXPORTED not in sealed_modules(model).values():
        model.eval()
        return model
    for module in _open(model):
        module.training = False
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            module.eval()
    return model


def _open(model: nn.Module) -> Iterator[nn.Module]:
    """The modules whose mode counts: within an exported program it is fixed, and a frozen one has none."""
    exported = [name for name, kind in sealed_modules(model).items() if kind == EXPORTED]
    for name, module in model.named_modules():
        if hasattr(module, "training") and not any(not one or f"{name}.".startswith(f"{one}.") for one in exported):
            yield module


def explained(error: RecipeError, name: str, sealed: Mapping[str, str], *, did_nothing: bool) -> RecipeError:
    """The same error of the recipe `name`, with what seals the model in its place: the recipe's own text would advise
    what fails likewise. Beside it where the recipe failed of something else, such as its calibration data."""
    if not sealed:
        return error
    if sealed.get("") == SCRIPT:
        return type(error)(f"{name} cannot be applied: the model is {SCRIPT}; {WAY_OUT}")
    told = f"{_parts_in_words(sealed)}: {WAY_OUT}"
    if not did_nothing and not _comes_of_it(error, SCRIPT in sealed.values()):
        return type(error)(f"{error}; {told}")
    if SCRIPT not in sealed.values():
        from pytest_modelopt.optimizing.registry import RECIPES

        others = " or ".join(other for other, recipe in RECIPES.items() if recipe.takes_exported and other != name)
        told += f", or take {others}, which {'take' if ' or ' in others else 'takes'} an exported program as it is"
    return type(error)(f"{name} {'changed nothing' if did_nothing else 'cannot be applied'}: {told}")


def _parts_in_words(sealed: Mapping[str, str]) -> str:
    told = []
    for kind in dict.fromkeys(sealed.values()):
        names = [f"`{name}`" if name else "the model" for name, other in sealed.items() if other == kind]
        more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
        *first, last = [*names[:_NAMED], *more]
        told.append(f"{', '.join(first)} and {last} are each {kind}" if first else f"{last} is {kind}")
    return "; ".join(told)


def _comes_of_it(error: BaseException, holds_script: bool) -> bool:
    """Whether a recipe failed since it called what a sealed module has not, or since nothing traces TorchScript."""
    if holds_script and _UNTRACED.search(str(error)):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotImplementedError) and _MODELESS.search(str(cause)):
            return True
        cause = cause.__cause__
    return False
