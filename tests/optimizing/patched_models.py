"""Models with layers that do not behave like their class, and the same models without: made anew from one seed."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from pytest_modelopt.optimizing.calling import Inputs, call

WIDTH = 256
"""256 x 256 weights, so that all recipes take a plain layer."""
RANK = 4


def easy_weights(model: nn.Module, generator: torch.Generator) -> None:
    """Matrices of a low rank with many zeros: pruning, factorizing and sparse storage keep their answers."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            rows, columns = module.weight.shape
            rank = min(RANK, rows, columns)
            weight = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
            held = torch.arange(columns) % 8 == 0 if columns > 64 else torch.ones(columns, dtype=torch.bool)
            with torch.no_grad():
                module.weight.copy_(weight * held / (rank * held.sum()) ** 0.5)


class Stack(nn.Module):
    """`layer` is what gets patched; the two Linear around it are plain."""

    def __init__(self, before: nn.Module, layer: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.layer, self.after = before, layer, after
        self.answers_in_a_tuple = isinstance(layer, (nn.RNNBase, nn.LSTMCell))
        self.wide = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.layer(self.before(x))
        x = self.after(x[0] if self.answers_in_a_tuple else x)
        return self.head(torch.relu(self.wide(x)))


def images(layer: nn.Module) -> tuple[nn.Module, Inputs]:
    before = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    after = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return Stack(before, layer, after), torch.randn(4, 3, 8, 8)


def signals(layer: nn.Module) -> tuple[nn.Module, Inputs]:
    before = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
    after = nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), nn.AdaptiveAvgPool1d(16), nn.Flatten())
    return Stack(before, layer, after), torch.randn(4, 3, 32)


def sequences(layer: nn.RNNBase) -> tuple[nn.Module, Inputs]:
    after = nn.Linear(layer.proj_size or layer.hidden_size, WIDTH)
    return Stack(nn.Linear(12, 24), layer, after), torch.randn(3, 7, 12)


LAYERS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "Linear": lambda: (
        Stack(nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU()),
        torch.randn(6, 64),
    ),
    "Conv2d": lambda: images(nn.Conv2d(8, 16, 3)),
    "ConvTranspose2d": lambda: images(nn.ConvTranspose2d(8, 16, 3)),
    "Conv1d": lambda: signals(nn.Conv1d(8, 16, 3)),
    "LSTM": lambda: sequences(nn.LSTM(24, 40, batch_first=True)),
    "LSTM with projections": lambda: sequences(nn.LSTM(24, 40, batch_first=True, proj_size=16)),
    "GRU": lambda: sequences(nn.GRU(24, 40, batch_first=True)),
    "unbatched LSTM": lambda: (
        Stack(nn.Linear(12, 24), nn.LSTM(24, 40), nn.Linear(40, WIDTH)),
        torch.randn(7, 12),
    ),
    "unbatched GRU": lambda: (Stack(nn.Linear(12, 24), nn.GRU(24, 40), nn.Linear(40, WIDTH)), torch.randn(7, 12)),
    "LSTMCell": lambda: (Stack(nn.Linear(12, 24), nn.LSTMCell(24, 40), nn.Linear(40, WIDTH)), torch.randn(5, 12)),
}


def weight_of(layer: nn.Module) -> str:
    return next(name for name in ("weight", "weight_hh_l0", "weight_hh") if hasattr(layer, name))


def flipped(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return (answer[0].flip(-1), *answer[1:])
    return answer.flip(-1)


def own_forward(layer: nn.Module) -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        return flipped(type(self).forward(self, x))

    layer.forward = types.MethodType(forward, layer)


def clamped_rarely(layer: nn.Module) -> None:
    """Differs for inputs that the measured call need not have."""
    original = layer.forward

    def forward(x: torch.Tensor) -> Any:
        return original(x.clamp(-1e3, 1e3))

    layer.forward = forward


def wrapped_forward(layer: nn.Module) -> None:
    """As libraries do that put hooks into `forward`."""
    before = layer.forward

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return flipped(before(*args, **kwargs))

    layer.forward = functools.partial(forward, layer)


def own_call(layer: Any) -> None:
    before = layer._call_impl
    vars(layer)["_call_impl"] = lambda *args, **kwargs: flipped(before(*args, **kwargs))


def shadowed_weight(layer: nn.Module) -> None:
    """An attribute of the instance stands before the parameter of the same name."""
    name = weight_of(layer)
    vars(layer)[name] = -2 * getattr(layer, name).detach()
    if isinstance(layer, nn.RNNBase):
        layer._flat_weights = [getattr(layer, each) for each in layer._flat_weights_names]


PATCHES: dict[str, Callable[[nn.Module], Any]] = {
    "own forward": own_forward,
    "forward that clamps": clamped_rarely,
    "wrapped forward": wrapped_forward,
    "own _call_impl": own_call,
    "shadowed weight": shadowed_weight,
    "pre-hook": lambda layer: layer.register_forward_pre_hook(lambda _, args: (args[0] * 3, *args[1:])),
    "hook": lambda layer: layer.register_forward_hook(lambda _, args, answer: flipped(answer)),
    "pre-hook with keywords": lambda layer: layer.register_forward_pre_hook(
        lambda _, args, kwargs: ((args[0].flip(-1), *args[1:]), kwargs), with_kwargs=True
    ),
    "hook with keywords": lambda layer: layer.register_forward_hook(
        lambda _, args, kwargs, answer: flipped(answer), with_kwargs=True
    ),
    "hook that looks": lambda layer: layer.register_forward_hook(lambda *_: None),
    "weight_norm by hook": lambda layer: nn.utils.weight_norm(layer, weight_of(layer)),
    "weight_norm": lambda layer: parametrizations.weight_norm(layer, weight_of(layer)),
    "spectral_norm by hook": lambda layer: nn.utils.spectral_norm(layer, weight_of(layer), n_power_iterations=20),
    "spectral_norm": lambda layer: parametrizations.spectral_norm(layer, weight_of(layer)),
    "pruning mask": lambda layer: prune.random_unstructured(layer, weight_of(layer), 0.5),  # type: ignore[no-untyped-call]
    "none": lambda layer: None,
}


def make_patched(layer: str, patch: str, seed: int = 0) -> tuple[Any, Inputs]:
    """The same bits at each call."""
    torch.manual_seed(seed)
    model, inputs = LAYERS[layer]()
    easy_weights(model, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_()
                assert module.running_var is not None
                module.running_var.uniform_(0.5, 2)
    PATCHES[patch](model.get_submodule("layer"))
    if patch == "spectral_norm by hook":
        with torch.no_grad():
            call(model.train(), inputs)  # it finds the norm in training only, and a far too small one blows all up
    return model.eval(), inputs


class Flipping(nn.Parameter):
    """A weight with arithmetic of its own, as adapters have that are made as tensor classes."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            answer = func(*args, **(kwargs or {}))
        return answer.flip(-1) if func is F.linear else answer


class Plainly(nn.Parameter):
    """A weight with a class of its own, and the arithmetic of any other."""
