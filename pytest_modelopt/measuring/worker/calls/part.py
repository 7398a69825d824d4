"""The module of a model that recipes change, what it gets in a call of the whole, and what is put in its place."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pytest_modelopt.measuring.worker.calls.called_model import CalledModel, alone, modules_in, seen
from pytest_modelopt.optimizing.calling import Inputs, call, fresh
from pytest_modelopt.optimizing.describe import last_line, total_bytes, user_line
from pytest_modelopt.optimizing.modules.nested_values import attributes
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step
from pytest_modelopt.optimizing.recipe import RecipeError
from pytest_modelopt.results.figures import format_bytes
from pytest_modelopt.results.measurement import Coverage

_NAMED = 5


_REACHES_NONE = "a call reaches no module at all, as where it answers from a cache that an earlier call has filled"


class _Reached(BaseException):
    """Ends a call once the module is reached: no `except Exception` of the project's takes it for a failure."""


class Part:
    """The module at `path` in `whole`, the model as it is called; without a path the model without its call."""

    def __init__(self, whole: nn.Module, path: str) -> None:
        """Raises RecipeError where there is no module, or no call could be told from outside."""
        self._whole, self._path = whole, path
        self.module = _module_at(whole, path)
        self._reached: tuple[str, ...] = ()
        self._is_by_name = False
        """Whether it was given to recipes as called with keyword arguments only."""

    @property
    def name(self) -> str:
        return f"`{self._path}`" if self._path else "the model"

    def inputs_of_calls(self, inputs: Inputs) -> list[Inputs]:
        """What the module gets in each of its calls in one call of the whole on `inputs`.

        Raises:
            RecipeError: there is none, the whole call fails, or the arguments have a form of which recipes know none.
        """
        found: list[Inputs] = []
        reached: dict[str, None] = {}
        names = {module: name for name, module in seen(self._whole).named_modules() if name}

        def note(module: nn.Module, _: Any) -> None:
            if module in names:
                reached[names[module]] = None

        every = register_module_forward_pre_hook(note)
        try:
            with _told(self.module, lambda args, kwargs: found.append(self._form(args, kwargs))):
                self._call(inputs)
        finally:
            every.remove()
        self._reached = tuple(reached)
        if not found:
            raise RecipeError(self._never_called())
        return found

    def first_inputs(self, inputs: Inputs) -> Inputs:
        """What the module gets in its first call, at which the call of the whole ends: the module itself, of which a
        recipe may have changed half, is not run. Raises RecipeError as `inputs_of_calls`."""
        found: list[Inputs] = []

        def stop(args: Any, kwargs: Any) -> None:
            found.append(self._form(args, kwargs))
            raise _Reached

        with _told(self.module, stop), contextlib.suppress(_Reached):
            self._call(inputs)
        if not found:
            raise RecipeError(self._never_called())
        return found[0]

    def put(self, new: nn.Module, inputs: Inputs, by: str) -> nn.Module:
        """The whole with `new`, which `by` has made, wherever the module stood. It is called once on `inputs`.

        Raises:
            RecipeError: the whole no longer runs, or still calls the module that was replaced.
        """
        old, calls_of_old = self.module, list[Any]()
        if new is not old:
            self._replace(new)
        is_gone = all(module is not old for module in new.modules())
        with _told(old, lambda args, kwargs: calls_of_old.append(args)) if is_gone else contextlib.nullcontext():
            error = self._error(inputs)
            if error is not None and new is not old and self._is_by_name:
                self._replace(Rebound(new, _parameters(old)))
                error = self._error(inputs) and error
        if error is not None:
            raise RecipeError(
                f"with what {by} has made of {self.name}, {self._failure(error)}{self._advice()}"
            ) from error
        if calls_of_old:
            raise RecipeError(
                f"the model holds {self.name} in a second place to which no attribute leads (a list, a dict, a closure)"
                f" and still calls it there after {by}: hold it by attributes of modules alone"
            )
        return self._whole

    def notes(self, calls: int) -> tuple[str, ...]:
        """What should be known of it; `calls` is how often one call of the whole calls it."""
        told = []
        if self._path:
            of_all = total_bytes(seen(self._whole))
            own = f"{format_bytes(total_bytes(self.module))} of {format_bytes(of_all)} of the weights"
            told.append(f"recipes change {self.name} only ({own}): coverage is about that")
        modules = seen(self._whole).named_modules(remove_duplicate=False)
        names = [name for name, module in modules if module is self.module and name != self._path]
        if names and self._path:
            told.append(f"{self.name} is {_listed(names)}, too: what recipes make of it takes its place there as well")
        if calls > 1:
            told.append(
                f"{self.name} is called {calls} times in each call: recipes work with what it gets in the first, and "
                "converters leave open which sizes differ"
            )
        return tuple(told)

    def within(self, coverage: Coverage) -> Coverage:
        """The same with the layers' names as the whole model knows them."""
        if not self._path:
            return coverage
        named = tuple(replace(layer, name=f"{self._path}.{layer.name}".rstrip(".")) for layer in coverage.layers)
        steps = tuple(
            replace(step, unlike_class={f"{self._path}.{name}": why for name, why in step.unlike_class.items()})
            for step in coverage.steps
        )
        return replace(coverage, layers=named, steps=steps)

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(self, inputs: Inputs) -> None:
        if error := self._error(inputs):
            raise RecipeError(self._failure(error)) from error

    def _error(self, inputs: Inputs) -> Exception | None:
        try:
            with torch.no_grad(), step_by_step():
                call(self._whole, inputs)
        except Exception as error:
            return error
        return None

    def _failure(self, error: Exception) -> str:
        what = f"`{self._whole.name}`" if isinstance(self._whole, CalledModel) else "the model"
        return f"{what} raises {last_line(error)}{user_line(error)}"

    def _form(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """The arguments as inputs that `calling.call` gives again, without those that are their defaults anyway."""
        given = _without_defaults(self.module, args, kwargs)
        if given is None:
            raise RecipeError(
                f"{self.name} gets positional and keyword arguments at once, and its forward takes `*args`: recipes "
                "can call it by one of both only; give all of them by name"
            )
        self._is_by_name = isinstance(given, dict)
        copied: Inputs = fresh(given)
        return copied

    def _never_called(self) -> str:
        way_out = f"a call reaches {_listed(self._reached)}" if self._reached else _REACHES_NONE
        if self._path:
            return f"`optimize: {self._path}`: the call never calls it, or only its methods; {way_out}"
        return (
            "the call never calls the model itself, so the inputs that recipes need are not known: name the "
            "module that "
            f"they change by `optimize:` ({way_out})"
        )

    def _advice(self) -> str:
        if self._path:
            return ""
        reached = f", of which a call reaches {_listed(self._reached)}" if self._reached else ""
        return (
            "; where the call uses more of the model than its forward, name the module that recipes change by "
            f"`optimize:`{reached}"
        )

    # --- places ------------------------------------------------------------------------------------------------------

    def _replace(self, new: nn.Module) -> None:
        for parent in list(self._whole.modules()):
            for name, child in parent._modules.items():
                if child is self.module:
                    parent._modules[name] = new
        owner = alone(self._whole)
        for name in self._path.split(".")[:-1]:
            owner = getattr(owner, name)
        if not isinstance(owner, nn.Module):
            for name, held in attributes(owner).items():
                if held is self.module:
                    setattr(owner, name, new)
        self.module = new


class Rebound(nn.Module):
    """What was made of a module that recipes called by keywords, where the project calls it in another way too: with
    positional arguments, or with those that are their defaults anyway."""

    def __init__(self, made: nn.Module, parameters: tuple[tuple[str, Any], ...]) -> None:
        super().__init__()
        self._orig_mod = made  # as `describe.author_name` leaves out
        self.parameters_of_original = parameters
        self.training = made.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        defaults = dict(self.parameters_of_original)
        named = {**dict(zip(defaults, args, strict=False)), **kwargs}
        return self._orig_mod(**{key: one for key, one in named.items() if not is_default(one, defaults.get(key, ...))})


def bare(module: nn.Module) -> nn.Module:
    """What a recipe has made, without what calls it otherwise."""
    return module._orig_mod if isinstance(module, Rebound) else module


def is_default(value: Any, default: Any) -> bool:
    """Whether an argument is a plain value, and what it would be if it were left out."""
    return type(value) in (type(None), bool, int, float, str) and type(value) is type(default) and value == default


def _module_at(whole: nn.Module, path: str) -> nn.Module:
    value = alone(whole)
    for depth, name in enumerate(path.split(".") if path else ()):
        if not hasattr(value, name):
            where = f"`{'.'.join(path.split('.')[:depth])}`" if depth else "the model"
            names = _names(value)
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; it has {_listed(names)}" if names else ""
            raise RecipeError(f"`optimize: {path}`: {where} has no `{name}`{hint}")
        value = getattr(value, name)
    if not isinstance(value, nn.Module):
        names = [name for name, _ in seen(whole).named_children()]
        raise RecipeError(
            f"`optimize: {path}` is a {type(value).__name__}, not a torch.nn.Module"
            + (f"; modules are {_listed(names)}" if names else "")
        )
    return value


def _names(value: Any) -> list[str]:
    held = value if isinstance(value, nn.Module) else modules_in(value)
    return [name for name, _ in held.named_children()]


def _listed(names: Any) -> str:
    shown = [f"`{name}`" for name in names]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more


@contextlib.contextmanager
def _told(module: nn.Module, tell: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> Iterator[None]:
    """Each call of the module is told before it runs."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell(args, kwargs)

    handle = module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _without_defaults(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One argument, a tuple of positional ones, or a dict of keyword ones; None where neither form can hold both."""
    if not kwargs:
        return args[0] if len(args) == 1 and type(args[0]) not in (tuple, dict) else args
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None if args else kwargs
    parameters = bound.signature.parameters
    given: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            return None
        if kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        elif not is_default(value, parameters[name].default):
            given[name] = value
    return given


def _parameters(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Names of its forward's parameters, each with its default where that is a plain value."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    found = [(each.name, each.default) for each in parameters if each.kind in by_name]
    return tuple((name, default if is_default(default, default) else ...) for name, default in found)
