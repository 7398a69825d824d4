"""Layers with a behavior of their own: hooks, a `forward` of the instance, a weight that is made anew for each call.

A recipe that replaces a layer makes the new one from its weights and settings, as if it were a plain layer of its
class. So a layer is replaced only if it behaves like one: nothing about the instance says otherwise, and on the inputs
that it gets in the measured call a plain layer with its weights gives the same answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import last_line, total_bytes
from pytest_modelopt.optimizing.modules.fused_path import fused_layers, unfused
from pytest_modelopt.optimizing.modules.hook_writes import REMEDY, hook_writes
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step

if TYPE_CHECKING:
    import torch
    from torch import nn

SAME = 32 * 2.0**-23
"""Difference up to which two answers are the same, relative to the largest: float32 rounds so over a few steps."""
ROUNDINGS = 4
"""The same in units of the answers' own precision, where that is lower."""
MOST_BYTES_OF_CALLS = 512 * 1024**2
"""Of the arguments and answers that are kept until the pass is over; calls beyond are looked at while it runs."""
HARMLESS = frozenset({"extra_repr", "reset_parameters"})
"""Methods that no call uses."""
PASSED_BY = (
    "one of the parts of their TransformerEncoderLayer has a `forward` of its own, which torch's fused path does not "
    "call and a changed layer would; delete it in the factory to have them changed"
)
WRITE_ONCE = "write them once in the factory"
WEIGHTS = ("weight", "bias")
"""How the names of weights begin that a hook has made plain attributes of."""
CALLING = frozenset({"forward", "_call_impl", "_slow_forward", "_compiled_call_impl"})


def own_behavior(
    model: nn.Module, inputs: Inputs, modules: Iterable[nn.Module], *, hooks_stay: bool = False
) -> dict[nn.Module, str]:
    """Those of `modules` that may not be replaced by what is made from their weights, each with the reason.

    Where one line of code makes the layer a plain one, the reason says it. `hooks_stay`: the recipe changes the weight
    only, and the hooks are called as before.
    """
    modules = list(modules)
    found: dict[nn.Module, str] = {}
    by_fused_path = _passed_by(model)
    plain: dict[nn.Module, nn.Module] = {}
    for module in modules:
        hooked = any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
        reason = reparametrized(module) or next(filter(None, map(own_forward, module.modules())), "")
        if not reason and hooked and not hooks_stay:
            reason = "they carry forward hooks, which would be lost; remove the hooks in the factory to have it changed"
        if reason or module in by_fused_path:
            found[module] = reason or PASSED_BY
        elif not hooked and (twin := plain_twin(module)) is not None:
            plain[module] = twin
    # of `max_norm`, which makes every call write, each recipe has a reason of its own
    before = {m: _weights(m) for m in modules if m not in found and getattr(m, "max_norm", None) is None}
    found |= answering_otherwise(model, inputs, plain) if before or plain else {}
    written = [module for module, weights in before.items() if _weights(module) != weights]
    return found | _written(model, inputs, written)


def _weights(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Which tensors are the module's weights, where their numbers are, and how often they were written to."""
    held = {**module._parameters, **{name: value for name, value in vars(module).items() if name.startswith(WEIGHTS)}}
    return {
        name: (id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for name, tensor in held.items()
        if _is_plain_tensor(tensor)
    }


def _is_plain_tensor(value: Any) -> bool:
    import torch
    from torch import nn

    return type(value) in (torch.Tensor, nn.Parameter)


def _written(model: nn.Module, inputs: Inputs, modules: list[nn.Module]) -> dict[nn.Module, str]:
    """The reason for modules whose weights a call of the model writes: who replaces them loses that."""
    hooks = hook_writes(model, inputs) if modules else []
    names = {module: f"{name}." for name, module in model.named_modules()}
    by_hooks = {
        module: [str(hook) for hook in hooks if any(name.startswith(names[module]) for name in hook.tensors)]
        for module in modules
    }
    return {
        module: f"{(*told, 'the model writes their weights in each call')[0]}, and the weights of what would be put in "
        f"their place are no tensors to write to: {REMEDY if told else WRITE_ONCE}"
        for module, told in by_hooks.items()
    }


def of_classes(model: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """Modules with weights that are exactly of these classes of torch.nn, parametrized ones included."""
    from torch import nn
    from torch.nn.utils import parametrize

    classes = {getattr(nn, name) for name in names}
    return [
        module
        for module in model.modules()
        if parametrize.type_before_parametrizations(module) in classes and total_bytes(module)
    ]


def named(model: nn.Module, reasons: Mapping[nn.Module, str]) -> dict[str, str]:
    """The names in `model` of modules with weights, each with its reason."""
    return {
        name: reasons[module] for name, module in model.named_modules() if module in reasons and total_bytes(module)
    }


def reparametrized(module: nn.Module) -> str:
    """By what a weight of the module, or of its children, is made anew for each call, and how to end it; '' if it is
    not.
    """
    from torch.nn.utils import parametrize
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    removers: tuple[tuple[type, str, str, str], ...] = (
        (WeightNorm, "weight norm", "torch.nn.utils.remove_weight_norm", "name"),
        (SpectralNorm, "spectral norm", "torch.nn.utils.remove_spectral_norm", "name"),
        (BasePruningMethod, "a pruning mask", "torch.nn.utils.prune.remove", "_tensor_name"),
    )
    for part in module.modules():
        if parametrize.is_parametrized(part):
            name = next(iter(part.parametrizations))  # type: ignore[arg-type]
            remedy = f'torch.nn.utils.parametrize.remove_parametrizations(layer, "{name}")'
            return f"their `{name}` is parametrized, made anew for each call: call `{remedy}` in the factory"
        for hook in part._forward_pre_hooks.values():
            for kind, words, remover, attribute in removers:
                if isinstance(hook, kind):
                    name = getattr(hook, attribute)
                    remedy = f'{remover}(layer, "{name}")'
                    return f"{words} makes their `{name}` anew for each call: call `{remedy}` in the factory"
    return ""


def own_forward(module: nn.Module) -> str:
    """That a method which a call uses is not that of the module's class; '' if all are."""
    from torch import nn

    kind = type(module)
    layer_classes = kind.__mro__[: kind.__mro__.index(nn.Module)]
    called = CALLING | {name for each in layer_classes for name, value in vars(each).items() if callable(value)}
    for name in sorted(called - HARMLESS):
        if vars(module).get(name) is not None:
            return (
                f"they have a `{name}` of their own, which would be lost; delete it in the factory to have it changed"
            )
    of_torch = kind.__module__.startswith("torch.nn.modules.")
    if of_torch and getattr(kind.forward, "__globals__", {}).get("__name__", kind.__module__) != kind.__module__:
        return f"the `forward` of torch's {kind.__name__} was replaced by another one, which would be lost"
    return ""


def _passed_by(model: nn.Module) -> set[nn.Module]:
    """All parts of the encoder layers that torch runs fused although a part has a `forward` of its own."""
    return {part for layer in fused_layers(model) if any(map(own_forward, layer.modules())) for part in layer.modules()}


def plain_twin(module: nn.Module) -> nn.Module | None:
    """A new object of the same class with the same settings and weights, and nothing else of the instance's own."""
    from torch import nn

    blank = vars(nn.Module())
    twin = type(module).__new__(type(module))
    held = {*module._parameters, *module._buffers, *module._modules}
    vars(twin).update({name: value for name, value in vars(module).items() if name not in {*blank, *held}})
    vars(twin).update(blank, training=module.training)
    parameters = {name: _ordinary(tensor) for name, tensor in module._parameters.items()}
    buffers = {name: _ordinary(tensor) for name, tensor in module._buffers.items()}
    vars(twin).update(_parameters=parameters, _buffers=buffers)
    twin._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    children = {name: child and plain_twin(child) for name, child in module._modules.items()}
    vars(twin).update(_modules=children)
    if isinstance(module, nn.RNNBase):
        if not all(name in module._parameters for name in module._flat_weights_names):
            return None
        vars(twin)["_flat_weights"] = [parameters[name] for name in module._flat_weights_names]
    return twin


def _ordinary(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A tensor without the arithmetic of a class of its own, which recipes do not take over.

    torchao's stand for quantized numbers, and have none of another form to show.
    """
    import torch
    from torch import nn

    kind = type(tensor)
    if tensor is None or kind in (torch.Tensor, nn.Parameter) or kind.__module__.startswith("torchao."):
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach().as_subclass(torch.Tensor)


def answering_otherwise(model: nn.Module, inputs: Inputs, plain: dict[nn.Module, nn.Module]) -> dict[nn.Module, str]:
    """Modules that answer one of their calls in a pass of the model otherwise than their plain twin."""
    import torch

    differing: dict[nn.Module, str] = {}
    calls: list[tuple[nn.Module, Any, Any, Any]] = []
    room = MOST_BYTES_OF_CALLS

    def note(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        nonlocal room
        size = _bytes_in((args, kwargs, answer))
        if size > room:
            compare(module, args, kwargs, answer)
        else:
            room -= size
            calls.append((module, args, kwargs, _copies(answer)))

    def compare(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        try:
            same = same_answers(answer, plain[module](*args, **kwargs))
        except Exception as error:
            differing[module] = f"a plain layer with their weights does not take what they get ({last_line(error)})"
        else:
            if not same:
                differing[module] = "a plain layer with their weights gives other answers to what they get"

    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.no_grad(), unfused():
        with _watched(plain, note), step_by_step():  # a compiler would look into what watches
            call(model, inputs)
        while calls:  # now that no module is at work that may have patched torch for the time of its call
            compare(*calls.pop(0))
    return differing


def _copies(values: Any) -> Any:
    import torch
    from torch.utils import _pytree

    return _pytree.tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, values)


def _bytes_in(values: Any) -> int:
    import torch
    from torch.utils import _pytree

    return sum(leaf.nbytes for leaf in _pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor))


@contextlib.contextmanager
def _watched(modules: Iterable[nn.Module], tell: Any) -> Iterator[None]:
    """Each call of one of `modules` is told with its arguments as they were before, hooks included in the answer.

    Forward hooks would not do: they see neither what other hooks make of an answer nor a call that passes them by.
    """
    from torch import nn

    watched = set(modules)
    original = nn.Module.__call__

    def calling(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module not in watched:
            return original(module, *args, **kwargs)
        before_args, before_kwargs = _copies((args, kwargs))
        answer = original(module, *args, **kwargs)
        tell(module, before_args, before_kwargs, answer)
        return answer

    nn.Module.__call__ = calling  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]


def same_answers(answer: Any, other: Any) -> bool:
    import torch
    from torch.utils import _pytree

    leaves, structure = _pytree.tree_flatten(answer)
    other_leaves, other_structure = _pytree.tree_flatten(other)
    if structure != other_structure:
        return False
    pairs = zip(leaves, other_leaves, strict=True)
    return all(_same_tensors(*pair) for pair in pairs if isinstance(pair[0], torch.Tensor))


def _same_tensors(one: torch.Tensor, other: Any) -> bool:
    import torch

    if not isinstance(other, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    tolerance = max(SAME, ROUNDINGS * torch.finfo(one.dtype).eps)
    largest = float(one.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(one, other, rtol=0, atol=tolerance * largest, equal_nan=True)
