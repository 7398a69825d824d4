"""Hooks of a model that write a weight or a buffer in a call: who traces a model or replaces layers can lose that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import author_name, type_name
from pytest_modelopt.optimizing.modules.fused_path import unfused

if TYPE_CHECKING:
    import torch
    from torch import nn

_MOST_TOLD = 3
REMEDY = "write it once in the factory and remove the hook (`handle.remove()`), or compute it in forward"


@dataclass(frozen=True)
class HookWrites:
    """What one hook writes in a call."""

    hook: str
    """In words: what it is, of which module, and the name of the function."""
    tensors: tuple[str, ...]
    """Names in the model."""

    def __str__(self) -> str:
        more = " and others" * (len(self.tensors) > _MOST_TOLD)
        return f"{self.hook} writes {', '.join(f'`{name}`' for name in self.tensors[:_MOST_TOLD])}{more} in each call"


def told_hook_writes(model: nn.Module, inputs: Inputs) -> str:
    """A sentence on the hooks that write tensors of the model, with the remedy; '' where none is seen.

    To be asked where a recipe has failed: it costs a call, and a look at all numbers around each hook.
    """
    told = " and ".join(map(str, hook_writes(model, inputs)[:_MOST_TOLD]))
    return told and f"In the model, {told}, and the variant cannot do so: {REMEDY}"


def hook_writes(model: nn.Module, inputs: Inputs) -> list[HookWrites]:
    """The hooks that write a tensor of the model in a call, in the order in which they are called."""
    import torch

    found: dict[str, list[str]] = {}
    restored: list[tuple[dict[int, Any], int, Any]] = []
    for name, module in model.named_modules():
        owner = f"`{author_name(name)}` ({type_name(module)})" if name else type_name(module)
        for kind, hooks in (("pre-hook", module._forward_pre_hooks), ("hook", module._forward_hooks)):
            for key, hook in list(hooks.items()):
                function = getattr(hook, "__name__", type(hook).__name__)
                place = f"the forward {kind} `{function}` of {owner}"
                hooks[key] = _noting(hook, model, functools.partial(found.setdefault, place, []))
                restored.append((hooks, key, hook))
    try:
        if restored:
            with torch.no_grad(), unfused():
                call(model, inputs)
    except Exception:
        return []  # what the hooks do cannot be seen then
    finally:
        for hooks, key, hook in restored:
            hooks[key] = hook
    return [HookWrites(place, tuple(dict.fromkeys(names))) for place, names in found.items()]


def _noting(hook: Callable[..., Any], model: nn.Module, written: Callable[[], list[str]]) -> Callable[..., Any]:
    @functools.wraps(hook, assigned=())
    def noted(*args: Any, **kwargs: Any) -> Any:
        before = dict(_states(model))
        answer = hook(*args, **kwargs)
        changed = [author_name(name) for name, state in _states(model) if before.get(name) != state]
        if changed:
            written().extend(changed)
        return answer

    return noted


def _states(model: nn.Module) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each tensor of the modules by name, with its identity, place, version and content.

    What is written through `.data` has no new version, and what is written anew with the same numbers no new content.
    """
    import torch

    for prefix, module in model.named_modules():
        held = {**module._parameters, **module._buffers, **vars(module)}
        for name, tensor in held.items():
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                state = (id(tensor), tensor.data_ptr(), _version(tensor), _sum(tensor))
                yield f"{prefix}.{name}" if prefix else name, state


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _sum(tensor: torch.Tensor) -> str:
    """In words, since NaN is no number that equals itself."""
    if tensor.is_quantized or tensor.is_meta:
        return ""
    return str(tensor.detach().sum(dtype=None if tensor.is_complex() else _wide(tensor)).item())


def _wide(tensor: torch.Tensor) -> torch.dtype:
    import torch

    return torch.float64 if tensor.is_floating_point() else torch.int64
