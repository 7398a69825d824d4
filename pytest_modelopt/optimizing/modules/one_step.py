"""A decoder as recipes that follow its forward pass need it: one step, without the cache that a call keeps or returns.

A program of another runtime takes and returns tensors, and a cache is an object that grows from call to call. A forward
that goes through the model once for each token would become a program as long as its loop, for this length only.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import own_bytes, type_name, weight_owners
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step
from pytest_modelopt.optimizing.recipe import RecipeError

if TYPE_CHECKING:
    from torch import nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))
"""What may stand in an output beside tensors: a converted model gives it back as it was."""
FEW_PASSES = 4
"""A model that is called so often on tokens of its own making generates; two and three are towers of one encoder."""
MANY_PASSES, MANY_OPERATORS = 8, 2000
"""A loop of any kind beyond both makes programs of which the conversion takes minutes."""


@contextlib.contextmanager
def one_step(model: nn.Module, inputs: Inputs) -> Iterator[tuple[str, ...]]:
    """The model returns and keeps no cache for the time of the block, which is given a note where it otherwise would.

    Models that make a cache say so by `use_cache` of a `config`; what is left in the output and is neither a tensor nor
    a plain value becomes None.
    """
    import torch
    from torch.utils import _pytree

    before = _leaves(model, inputs)
    held: list[Any] = [vars(module).get("config") for module in model.modules()]
    configs = {id(config): config for config in held if getattr(config, "use_cache", None) is True}
    for config in configs.values():
        config.use_cache = False
    handle = None
    try:
        after = _leaves(model, inputs) if configs else before
        opaque = [leaf for leaf in after if not isinstance(leaf, (torch.Tensor, *PLAIN))]
        takes_hooks = not isinstance(model, torch.jit.ScriptModule)
        if opaque and takes_hooks and any(isinstance(leaf, torch.Tensor) for leaf in after):
            handle = model.register_forward_hook(
                lambda _model, _inputs, output: _pytree.tree_map(
                    lambda leaf: leaf if isinstance(leaf, (torch.Tensor, *PLAIN)) else None, output
                )
            )
        yield _note(before, after, opaque if handle else [])
    finally:
        if handle is not None:
            handle.remove()
        for config in configs.values():
            config.use_cache = True


def refuse_loop(model: nn.Module, inputs: Inputs, recipe_name: str) -> None:
    """Raise a RecipeError for a forward that goes through most of the model's weights again and again in one call.

    Refused are loops that take their next tokens from their own answers, however short, and all long ones.
    """
    calls, tokens = _watched(model, inputs)
    passes = _passes(model, calls)
    if passes < FEW_PASSES:
        return
    if _watched(model, inputs, moves=True)[1] != tokens:
        how, way_out = "taking its next tokens from what came out", "give the gate a model whose forward is one step"
    elif passes >= MANY_PASSES and _operators(model, inputs) >= MANY_OPERATORS:
        how, way_out = "as a loop over a sequence does", "nn.LSTM and nn.GRU, say, take the sequence as a whole"
    else:
        return
    step = next(name for name, module in model.named_modules() if name and calls[module] >= passes)
    raise RecipeError(
        f"{recipe_name} converts one pass through a model, and forward of {type_name(model)} goes through `{step}` "
        f"{passes} times in one call, {how}: the program would repeat it as often, for this number of steps only; "
        f"{way_out}, or take a recipe that stays in torch, such as int8-dynamic"
    )


def _watched(model: nn.Module, inputs: Inputs, *, moves: bool = False) -> tuple[Counter[nn.Module], list[list[Any]]]:
    """How often each module is called in one call of the model, and the whole numbers that layers with weights are
    given; `moves`: what other layers with weights answer is shifted by one."""
    import torch

    calls: Counter[nn.Module] = Counter()
    tokens: list[list[Any]] = []

    def count(module: nn.Module, args: tuple[Any, ...], answer: Any) -> Any:
        calls[module] += 1
        given = args[0] if args else None
        if module not in owners or not isinstance(given, torch.Tensor):
            return None
        if not given.is_floating_point():
            tokens.append(given.tolist())
            return None
        return answer.roll(1, -1) if moves and isinstance(answer, torch.Tensor) and answer.dim() else None

    owners = {module for _, module in weight_owners(model)}
    hooked = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_hook(count) for module in hooked]
    try:
        with torch.no_grad(), unfused(), step_by_step(), torch.random.fork_rng([]):
            torch.manual_seed(0)
            call(model, inputs)
    except Exception:
        if not moves:
            raise
    finally:
        for handle in handles:
            handle.remove()
    return calls, tokens


def _passes(model: nn.Module, calls: Counter[nn.Module]) -> int:
    """How often a call goes through the layers that hold half of the weights, at the least."""
    sizes = sorted(((calls[module], own_bytes(module)) for _, module in weight_owners(model)), reverse=True)
    half, seen = sum(size for _, size in sizes) / 2, 0
    for passes, size in sizes:
        seen += size
        if seen >= half:
            return passes
    return 0


def _operators(model: nn.Module, inputs: Inputs) -> int:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = 0

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal seen
            seen += 1
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), unfused(), step_by_step(), Counting():  # type: ignore[no-untyped-call]
        call(model, inputs)
    return seen


def _leaves(model: nn.Module, inputs: Inputs) -> list[Any]:
    import torch
    from torch.utils import _pytree

    with torch.no_grad(), unfused():
        return _pytree.tree_leaves(call(model, inputs))


def _note(before: list[Any], after: list[Any], opaque: list[Any]) -> tuple[str, ...]:
    import torch

    if len(before) == len(after) and not opaque:
        return ()
    kinds = [type(leaf).__name__ for leaf in before if not isinstance(leaf, (torch.Tensor, *PLAIN))]
    which = f" ({', '.join(dict.fromkeys(kinds))})" if kinds else ""
    return (
        f"the cache that a call returns{which} is left out: the variant makes one step, and keeps nothing for the next",
    )
