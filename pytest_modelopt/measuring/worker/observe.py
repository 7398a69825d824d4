"""What a worker can see of a variant beside its figures: facts for the doctor, cheap ones only.

Looking must never cost a case: where one look fails, its reason stands in `unobserved`, and the rules that need it are
silent.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd.profiler import profile

from pytest_modelopt.measuring.protocol import error_text
from pytest_modelopt.measuring.worker.answers.repeating import KeptAnswer, dense
from pytest_modelopt.measuring.worker.files.content_digest import is_packed
from pytest_modelopt.optimizing.describe import author_name, known_base, type_name
from pytest_modelopt.optimizing.modules.fused_path import is_fused
from pytest_modelopt.optimizing.modules.sealed import in_training
from pytest_modelopt.optimizing.modules.shared_tensors import held_beside, sharing
from pytest_modelopt.optimizing.modules.tensor_digest import update_with_bytes
from pytest_modelopt.optimizing.runtimes.runtime_module import EngineModule, HoldsPrograms
from pytest_modelopt.results.observations import Observations

_SHOWN = 20

Facts: TypeAlias = dict[str, Any]
Ties: TypeAlias = tuple[tuple[str, ...], ...]


def observe(
    model: nn.Module, call: Callable[[], Any], known: Mapping[str, Any], ties: Ties, unobserved: Mapping[str, str]
) -> Observations:
    """All that can be seen of `model`, whose measured call is `call`.

    `known` are facts that were noticed before, and `unobserved` those that could not be; `ties` are the weights that
    shared storages before the recipe.
    """
    looks: dict[str, Callable[[], Facts]] = {
        "modules": lambda: _modules(model),
        "graphs": lambda: {"quantize_nodes": _quantize_nodes(model)},
        "weights": lambda: _weights(model),
        "matrices": lambda: _matrices(model),
        "layers": lambda: _layers(model),
        "ties": lambda: _ties(model, ties),
        "answers": lambda: _answers(call),
        "compiled": lambda: {"compiled": is_compiled(call)},
    }
    found: Facts = dict(known)
    failed = dict(unobserved)
    for name, look in looks.items():
        try:
            found.update(look())
        except Exception as error:
            failed[name] = error_text(error, 300)
    return Observations(**found, unobserved=failed)


# --- modules ---------------------------------------------------------------------------------------------------------

_IMITATIONS = ("FakeQuantize", "Observer", "FakeQuantizer", "TensorQuantizer")
_QUANTIZERS = ("torch.ao.quantization", "torchao", "modelopt", "brevitas")


def _modules(model: nn.Module) -> Facts:
    modules = list(model.modules())
    return {
        "training_modules": len(in_training(model)),
        "fake_quantizers": sum(_only_imitates(module) for module in modules),
        "packed_modules": sum(is_packed(module) for module in modules),
        "fused_layers": sum(
            isinstance(module, nn.TransformerEncoderLayer) and _would_be_fused(module) for module in modules
        ),
        "derived_layers": {type_name(module): base for module in modules if (base := known_base(module))},
    }


def is_compiled(call: Callable[[], Any]) -> bool:
    """Whether compiled code runs in a call, whatever module or function it hides in.

    The profiler's events tell, as long as the compiler was imported at all.
    """
    if "torch._dynamo" not in sys.modules:
        return False
    with torch.inference_mode(), profile(use_kineto=True) as profiler:
        call()
    events = profiler.kineto_results.events() if profiler.kineto_results is not None else []
    return any(event.name().startswith("Torch-Compiled Region") for event in events)


def _only_imitates(module: nn.Module) -> bool:
    """By the names of its classes: the libraries that bring them need not be imported here."""
    return any(
        kind.__module__.startswith(_QUANTIZERS) and any(word in kind.__name__ for word in _IMITATIONS)
        for kind in type(module).__mro__
    )


def _would_be_fused(layer: nn.TransformerEncoderLayer) -> bool:
    return torch.backends.mha.get_fastpath_enabled() and not layer.training and is_fused(layer)


def _quantize_nodes(model: nn.Module) -> int:
    """In its torch.fx graphs: operators that quantize a tensor, or make floating point of it again."""
    graphs = [module for module in model.modules() if isinstance(module, torch.fx.GraphModule)]
    names = [str(node.target) for module in graphs for node in module.graph.nodes if node.op == "call_function"]
    return sum("quantized_decomposed." in name for name in names)


# --- weights ---------------------------------------------------------------------------------------------------------


def _weights(model: nn.Module) -> Facts:
    masks = [(name, mask) for name, mask in model.named_buffers() if name.endswith("_mask")]
    parameters = dict(model.named_parameters())
    masked = [mask for name, mask in masks if f"{name.removesuffix('_mask')}_orig" in parameters]
    float_bytes: dict[str, int] = {}
    for parameter in parameters.values():
        if parameter.is_floating_point() and not _of_torchao(parameter):
            kind = str(parameter.dtype).removeprefix("torch.")
            float_bytes[kind] = float_bytes.get(kind, 0) + parameter.nbytes
    return {
        "masked_weights": len(masked),
        "mask_bytes": sum(mask.nbytes for mask in masked),
        "float_bytes": float_bytes,
        "torchao_tensors": sum(_of_torchao(tensor) for tensor in (*parameters.values(), *model.buffers())),
    }


def _of_torchao(tensor: torch.Tensor) -> bool:
    return type(tensor).__module__.startswith("torchao")


def _matrices(model: nn.Module) -> Facts:
    """Numbers, and zeros, in the weights that a dense kernel multiplies with."""
    count = zeros = 0
    for module in model.modules():
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        weight = module.weight  # a masked or parametrized one as it is used
        if isinstance(weight, torch.Tensor) and weight.layout is torch.strided and not _of_torchao(weight):
            count += weight.numel()
            zeros += weight.numel() - int(torch.count_nonzero(weight.detach()))
    return {"matrix_weights": count, "zero_weights": zeros}


def _layers(model: nn.Module) -> Facts:
    narrow: dict[str, int] = {}
    for name, module in model.named_modules():
        width = _width(module)
        if width is not None and width <= 1 and len(narrow) < _SHOWN:
            narrow[author_name(name)] = width
        heads = getattr(module, "num_heads", None)
        if type(heads) is int and heads < 1 and len(narrow) < _SHOWN:
            narrow[author_name(name)] = heads
    return {"narrow_layers": narrow}


def _width(module: nn.Module) -> int | None:
    """Output channels; None for what has none, or not as a number."""
    for kind, attribute in ((nn.Linear, "out_features"), (nn.modules.conv._ConvNd, "out_channels")):
        width = getattr(module, attribute, None) if isinstance(module, kind) else None
        if isinstance(width, int):
            return width
    return None


# --- ties ------------------------------------------------------------------------------------------------------------


def ties(model: nn.Module) -> Ties:
    """Names of parameters that share numbers in memory, and of other tensors that share some with them, by group."""
    parameters = [each for each in model.named_parameters(remove_duplicate=False) if not _of_torchao(each[1])]
    beside = [each for each in held_beside(model) if not _of_torchao(each[1])]
    named = [(author_name(name), tensor) for name, tensor in (*parameters, *beside)]
    groups = [group for group in sharing([tensor for _, tensor in named]) if group[0] < len(parameters)]
    by_module = {author_name(name): id(module) for name, module in model.named_modules(remove_duplicate=False)}
    return tuple(
        tuple(names)
        for names in ([named[position][0] for position in group] for group in groups)
        # One module under two names is no tie: where it is replaced, it is replaced for both.
        if len({(by_module[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in names}) > 1
    )


def _ties(model: nn.Module, before: Ties) -> Facts:
    """The groups of `before` whose modules still stand, but no longer on one storage."""
    modules = {author_name(name): module for name, module in model.named_modules(remove_duplicate=False)}
    beside = {author_name(name): tensor for name, tensor in held_beside(model)} if before else {}
    untied, size = [], 0
    for names in before:
        owners = [modules.get(name.rpartition(".")[0]) for name in names]
        if isinstance(model, (EngineModule, HoldsPrograms)) or any(owner is None for owner in owners):
            continue
        if any("[" in name and name not in beside for name in names):
            continue
        held = [
            _place(beside[name]) if name in beside else _storage(owner, name.rpartition(".")[2])
            for owner, name in zip(owners, names, strict=True)
        ]
        if len({place for place, _ in held}) > 1:
            untied.append(" = ".join(names))
            size += min(nbytes for _, nbytes in held)
    return {"untied": tuple(untied), "untied_bytes": size}


def _storage(owner: Any, name: str) -> tuple[int, int]:
    """(address, bytes) of one weight, or of the packed form that took its place."""
    weight = getattr(owner, name, None)
    if callable(weight):
        weight = weight()  # of a packed module: unpacked for us, so its address is the module's
        return id(owner), int(weight.nbytes)
    if weight is None:
        raise LookupError(f"{type(owner).__name__} has no {name}")
    return _place(weight)


def _place(weight: torch.Tensor) -> tuple[int, int]:
    plain = weight.data
    if hasattr(plain, "__tensor_flatten__"):
        parts = [getattr(plain, part) for part in plain.__tensor_flatten__()[0]]
        return parts[0].untyped_storage().data_ptr(), sum(part.nbytes for part in parts)
    return plain.untyped_storage().data_ptr(), plain.nbytes


# --- bits and answers ------------------------------------------------------------------------------------------------


def _answers(call: Callable[[], Any]) -> Facts:
    with torch.inference_mode():
        first, before = KeptAnswer(output := call()), _hash(output)
        del output  # before the next one is made
        return {"answers": before, "varies": not first.is_like(call())}


def _hash(output: Any) -> str:
    whole = hashlib.sha256()
    for tensor in dense(output):
        whole.update(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
        update_with_bytes(whole, tensor)
    return whole.hexdigest()
