"""Traces of torch.fx with what stands around `forward`: hooks of the model itself, and a `forward` of the instance."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.describe import last_line, user_line
from pytest_modelopt.optimizing.modules.hook_writes import told_hook_writes
from pytest_modelopt.optimizing.modules.uncompiled import advice
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import fx, nn


def traced(
    make_tracer: Callable[[], fx.Tracer], model: nn.Module, inputs: Inputs, needs: str, otherwise: str
) -> fx.Graph:
    """What `forward` of the model's class computes on such inputs; arguments that are not given keep their default.

    `needs` begins the error's sentence: which recipe needs the trace, and for what. `otherwise` ends it: other recipes.

    Raises:
        RecipeError: with the line of the model that cannot be traced, and the hook that writes a weight.
    """
    try:
        return make_tracer().trace(model, concrete_args=defaults_of_absent_arguments(model, inputs) or None)
    except Exception as error:
        why = told_hook_writes(model, inputs)
        reason = f": {last_line(error)}. {why}" if why else _reason(model, error)
        raise RecipeError(
            f"{needs}, and {type(model).__name__} is not{user_line(error)}{reason}; {otherwise}"
        ) from error


def traced_whole(
    make_tracer: Callable[[], fx.Tracer], model: nn.Module, inputs: Inputs, needs: str, otherwise: str
) -> fx.Graph:
    """The same with the hooks of the model itself and its own `forward`; without them where they cannot be traced,
    so that whoever uses the graph has to compare its answers with the model's.
    """
    if model._forward_pre_hooks or model._forward_hooks or "forward" in vars(model):

        def make_whole() -> fx.Tracer:
            tracer: Any = make_tracer()
            tracer.create_args_for_root = _calling_whole(tracer.create_args_for_root, model, inputs)
            return tracer  # type: ignore[no-any-return]

        with contextlib.suppress(RecipeError):
            return traced(make_whole, model, inputs, needs, otherwise)
    return traced(make_tracer, model, inputs, needs, otherwise)


def _reason(model: nn.Module, error: Exception) -> str:
    if hasattr(type(model).forward, "__wrapped__"):  # as in Hugging Face's models; torch's message is about bytecode
        return ": a decorator stands around its forward, which torch.fx cannot look through"
    return advice(error) or f": {last_line(error)}"


def _calling_whole(create: Callable[..., Any], model: nn.Module, inputs: Inputs) -> Callable[..., Any]:
    """How torch.fx makes the function and the arguments that it traces, with a function that calls the whole model."""

    def created(function: Any, *others: Any) -> tuple[Any, list[Any]]:
        fitted, arguments = create(function, *others)
        if fitted is not function:  # of `*args`, keyword-only or nested arguments it makes a function of its own
            return fitted, arguments
        names = list(inspect.signature(function).parameters)[1:]
        with_hooks: Any = model._call_impl

        def whole(_: nn.Module, *given: Any) -> Any:
            if isinstance(inputs, Mapping):
                by_name = dict(zip(names, given, strict=True))
                return with_hooks(**{name: by_name[name] for name in inputs})
            return with_hooks(*given[: len(inputs) if type(inputs) is tuple else 1])

        return whole, arguments

    return created


def defaults_of_absent_arguments(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Parameters of `forward` that the inputs do not give, with their defaults."""
    signature = inspect.signature(model.forward)
    try:
        if isinstance(inputs, Mapping):
            bound = signature.bind_partial(**inputs)
        else:
            bound = signature.bind_partial(*(inputs if type(inputs) is tuple else (inputs,)))
    except TypeError:
        return {}
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in bound.arguments and parameter.default is not parameter.empty
    }
