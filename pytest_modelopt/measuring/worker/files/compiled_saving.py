"""The saved form of what torch's compiler and torch.export put into a model, for which pickle has none: functions that
were compiled are saved as they were before, with the settings, and compiled again where they are loaded."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pytest_modelopt.optimizing.modules.sealed import EXPORTED, kind_of
from pytest_modelopt.optimizing.modules.uncompiled import is_dynamo_here

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


def reduced(value: Any) -> Reduced | None:
    """How to make such a value again, for pickle; None for all others."""
    if isinstance(value, types.FunctionType):
        return _reduced_function(value)
    if is_dynamo_here() and isinstance(value, _eval_frame().OptimizeContext):
        return _reduced_context(value)
    return _reduced_exported(value) if kind_of(value) == EXPORTED else None


def _eval_frame() -> Any:
    return sys.modules["torch._dynamo.eval_frame"]


def _reduced_function(function: Any) -> Reduced | None:
    """torch.compile, torch.compiler.disable and patches of their settings leave functions of torch's own, around the
    user's one."""
    if not function.__closure__ or not str(function.__globals__.get("__name__", "")).startswith("torch._dynamo."):
        return None
    from torch._dynamo.decorators import DynamoConfigPatchProxy

    cells = {
        name: cell.cell_contents
        for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
        if name in ("self", "fn", "func")
    }
    context = cells.get("self")
    inner: Any = cells.get("fn", cells.get("func"))
    owner = None
    if isinstance(inner, types.MethodType):
        # As a method it would be looked up by its name, under which its object may have the compiled one by then.
        inner, owner = inner.__func__, inner.__self__
    if isinstance(context, _eval_frame().OptimizeContext):
        return _compiled, (inner, owner, context)
    if isinstance(context, _eval_frame().DisableContext):
        return _disabled, (inner, owner)
    if isinstance(context, DynamoConfigPatchProxy):
        return _patched, (inner, owner, context.changes)
    return None


def _reduced_context(context: Any) -> Reduced:
    """By what torch.compile was told. torch's own form has a copy of all settings of the compiler, 21 KiB, and forgets
    `fullgraph`."""
    backend = _eval_frame().innermost_backend(context.callback)
    for name, text in getattr(backend, "__dict__", {}).items():
        if type(text) is str:  # as in `size`: the same number of bytes once it was loaded
            setattr(backend, name, sys.intern(text))
    return _context, (backend, context.fullgraph, context._dynamic)


def _context(backend: Any, fullgraph: bool, dynamic: bool | None) -> Any:
    """As torch.compile ends, which makes such a backend of the name and the settings that it is given."""
    import torch._dynamo

    return torch._dynamo.optimize(backend, nopython=fullgraph, dynamic=dynamic)


def _bound(function: Any, owner: Any) -> Any:
    return function if owner is None else types.MethodType(function, owner)


def _compiled(function: Any, owner: Any, context: Any) -> Any:
    return context(_bound(function, owner))


def _disabled(function: Any, owner: Any) -> Any:
    import torch

    return torch.compiler.disable(_bound(function, owner))  # type: ignore[no-untyped-call]


def _patched(function: Any, owner: Any, changes: dict[str, Any]) -> Any:
    from torch._dynamo.decorators import patch_dynamo_config

    return patch_dynamo_config(**changes)(_bound(function, owner))


_REFUSED = ("train", "eval")
_LEFT_OUT = (*_REFUSED, "_tracer_cls", "_graphmodule_graph_node_meta_stack_trace")
"""Methods that hold the module itself, a class that cannot trace the code that is saved, and paths of source files."""


def _reduced_exported(module: Any) -> Reduced:
    """As torch.fx saves its modules, by their code and without hooks, but for what it cannot save of these."""
    rebuild, (body, *rest) = module.__reduce__()
    kept = {name: OrderedDict() if "_hooks" in name else body[name] for name in body if name not in _LEFT_OUT}
    return _exported, (rebuild, kept, *rest)


def _exported(rebuild: Callable[..., Any], *args: Any) -> Any:
    module = rebuild(*args)
    for name in _REFUSED:
        setattr(module, name, types.MethodType(_refuse, module))
    return module


def _refuse(module: Any, mode: bool = True) -> Any:
    raise NotImplementedError("Calling train() is not supported yet.")
