"""Changes of which one may break the model: as many of them as work are made, and the others are left out by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line
from pytest_modelopt.optimizing.modules.exact_layers import OTHER_PATH, computing_as, is_other
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.own_behavior import plain_twin
from pytest_modelopt.optimizing.modules.shared_tensors import replace_modules
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step
from pytest_modelopt.optimizing.quantization import torch_ao
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import nn

Unit = TypeVar("Unit")
NO_RUN = "the model does not run with them replaced"


def settle(
    units: Sequence[Unit],
    change: Callable[[Sequence[Unit]], object],
    undo: Callable[[Sequence[Unit]], object],
    problem: Callable[[], str],
) -> dict[Unit, str]:
    """Change as many units as the model bears: of those with which there is a `problem`, each half is tried by itself.

    Returns the units that were left out, each with its reason: what `change` raised, or what `problem` said.
    """
    if not units:
        return {}
    try:
        change(units)
        reason = problem()
    except RecipeError as error:
        reason = str(error)
    except Exception as error:
        reason = last_line(error)
    if not reason:
        return {}
    undo(units)
    if len(units) == 1:
        return {units[0]: reason}
    half = len(units) // 2
    parts = (units[:half], units[half:])
    return {unit: why for part in parts for unit, why in settle(part, change, undo, problem).items()}


class Replacing:
    """The replacement of modules by what `make` makes of them, with a way back."""

    def __init__(self, model: nn.Module, inputs: Inputs, make: Callable[[nn.Module], nn.Module]) -> None:
        self.model = model
        self.made: dict[nn.Module, nn.Module] = {}
        """What stands in the place of each module that was replaced."""
        self._inputs = inputs
        self._make = make
        self._answer = _seeded_run(model, inputs)
        self._held: dict[nn.Module, dict[str, Any]] = {}
        self._twins: dict[nn.Module, nn.Module | None] = {}
        """Of each that was replaced, one that computes the same."""

    def replace(self, units: Sequence[tuple[nn.Module, ...]]) -> dict[nn.Module, str]:
        """Replace all modules of each unit or none; returns the modules that stay, with the reason."""
        refused = settle(units, self._change, self._undo, self._problem)
        return {module: reason for unit, reason in refused.items() for module in unit}

    def _change(self, units: Sequence[tuple[nn.Module, ...]]) -> None:
        new: dict[nn.Module, nn.Module] = {}
        for module in (module for unit in units for module in unit):
            self._held[module] = {name: dict(part._parameters) for name, part in module.named_modules()}
            self._twins[module] = plain_twin(module)
            self.made[module] = new[module] = self._make(module)
        self.model = replace_modules(self.model, new.get)

    def _undo(self, units: Sequence[tuple[nn.Module, ...]]) -> None:
        from torch import nn

        modules = [module for unit in units for module in unit if module in self._held]
        back = {self.made.pop(module): module for module in modules if module in self.made}
        self.model = replace_modules(self.model, back.get)
        for module in modules:
            for name, parameters in self._held.pop(module).items():
                module.get_submodule(name)._parameters.update(parameters)
            if isinstance(module, nn.RNNBase):
                module._init_flat_weights()

    def _problem(self) -> str:
        try:
            answer = shape_of(run(self.model, self._inputs))
        except Exception as error:
            return f"{NO_RUN} ({last_line(error)}{explanation(error)})"
        if answer != shape_of(self._answer):
            return "with them replaced the model answers in other shapes or types"
        return OTHER_PATH if self._takes_other_path() else ""

    def _takes_other_path(self) -> bool:
        """Whether the model answers otherwise though each layer computes what it did; one that does not repeat itself
        tells nothing."""
        twins = {new: twin for module, new in self.made.items() if (twin := self._twins[module]) is not None}
        if len(twins) < len(self.made):
            return False
        with computing_as(twins):
            answer = _seeded_run(self.model, self._inputs)
            return is_other(self._answer, answer) and not is_other(answer, _seeded_run(self.model, self._inputs))


def _seeded_run(model: nn.Module, inputs: Inputs) -> Any:
    """Without torch.compile, which looks through whatever stands in for a layer."""
    import torch

    with torch.random.fork_rng([]), step_by_step():
        torch.manual_seed(0)
        return run(model, inputs)


def run(model: nn.Module, inputs: Inputs) -> Any:
    """One call, step by step: torch's fused path would read the weights of replaced layers itself."""
    import torch

    with torch_ao.quiet(), torch.no_grad(), unfused():
        return call(model, inputs)


def shape_of(answer: Any) -> Any:
    """The structure of an answer, with the shapes and dtypes of its tensors."""
    import torch
    from torch.utils import _pytree

    leaves, structure = _pytree.tree_flatten(answer)
    return structure, [(leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]


def explanation(error: Exception) -> str:
    """What the user can make of the errors that packed weights typically raise."""
    if "'function' object" in str(error) or "'method' object" in str(error) or "not method" in str(error):
        return (
            "; a packed layer's `weight` is a method, not a tensor: call the layer in forward instead of reading its "
            "weight"
        )
    return ""


def in_words(reasons: Mapping[Any, str], words: Callable[[Sequence[nn.Module]], str], left: str) -> list[str]:
    """A note for each reason: `2 Linear (1.5 KiB) left as they are: why`."""
    groups: dict[str, list[nn.Module]] = {}
    for module, reason in reasons.items():
        groups.setdefault(reason, []).append(module)
    return [f"{words(modules)} {left}: {reason}" for reason, modules in groups.items()]
