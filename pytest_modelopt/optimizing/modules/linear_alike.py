"""Layers of other classes that compute what nn.Linear does, lent its class for the time of the recipes.

Hugging Face's `Conv1D` holds the weight of a Linear transposed, and projects derive classes from nn.Linear without a
change of what it computes. What tells them is their behavior: one matrix and at most one bias, which answer as a Linear
of these numbers does, to inputs of our own and to what the layer gets in a call of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.answers import other_answers
from pytest_modelopt.optimizing.bisection import run, settle
from pytest_modelopt.optimizing.calling import Inputs
from pytest_modelopt.optimizing.describe import own_bytes, types_in_words
from pytest_modelopt.optimizing.modules.own_behavior import answering_otherwise, same_answers
from pytest_modelopt.optimizing.modules.shared_tensors import tied_parameters
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step

if TYPE_CHECKING:
    import torch
    from torch import nn

PROBES = (0.01, 1.0, 100.0)
"""Sizes of the numbers that a layer is tried on: a clamp, a ReLU or a norm shows on one of them."""


class LinearAlike:
    """The layers of a model that are no nn.Linear and compute the same. `lend` comes first, `give_back` last."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self._model, self._inputs = model, inputs
        self._lent: dict[nn.Module, _Layer] = {}

    def lend(self) -> tuple[str, ...]:
        """Make each such layer an nn.Linear: the same object, under the same name. Notes on those that became one.

        A layer with which the model then answers otherwise, since its code looks at the class or reads the weight,
        stays what it is.
        """
        tied = tied_parameters(self._model)
        found = {module: layer for module in self._model.modules() if (layer := _layer(module, tied))}
        if not found:
            return ()
        # hooks stay with the layer, and each recipe has its own rule on them
        twins: dict[nn.Module, nn.Module] = {
            module: layer.twin
            for module, layer in found.items()
            if not (module._forward_hooks or module._forward_pre_hooks)
        }
        others = answering_otherwise(self._model, self._inputs, twins)
        before = self._answers()
        self._lent = {module: layer for module, layer in found.items() if module not in others}
        refused = settle(
            list(self._lent.values()),
            lambda layers: [layer.lend() for layer in layers],
            lambda layers: [layer.restore() for layer in layers],
            lambda: other_answers(before, self._answers()),
        )
        self._lent = {module: layer for module, layer in self._lent.items() if layer not in refused}
        return self._notes()

    def give_back(self, model: nn.Module) -> None:
        """Give the layers that are still in `model` their own class, where they hold numbers of the same form."""
        for module in set(model.modules()) & set(self._lent):
            self._lent[module].take_back()

    def _answers(self) -> Any:
        import torch

        with torch.random.fork_rng([]), step_by_step():
            torch.manual_seed(0)
            return run(self._model, self._inputs)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        for is_transposed, how in ((True, ", with its weight transposed"), (False, "")):
            layers = [layer for layer in self._lent.values() if layer.is_transposed is is_transposed]
            sizes = [(layer.kind.__name__, own_bytes(layer.module)) for layer in layers]
            if sizes:
                notes.append(f"{types_in_words(sizes)} taken as Linear: each answers as one does{how}")
        return tuple(notes)


class _Layer:
    """A layer as it was, and the nn.Linear over its numbers that answers alike."""

    def __init__(self, module: nn.Module, twin: nn.Linear, *, is_transposed: bool) -> None:
        self.module, self.twin, self.is_transposed = module, twin, is_transposed
        self.kind = type(module)
        self._attributes = dict(vars(module))
        self._parameters = dict(module._parameters)

    def lend(self) -> _Layer:
        from torch import nn

        if self.is_transposed:  # laid out as a Linear's: some converters take the numbers as they lie in memory
            own = self._own_weight()
            self.twin.weight.data = own.data.t().contiguous()
            own.data = self.twin.weight.data.t()  # one copy at a time
        self.module.__class__ = nn.Linear
        vars(self.module).update(in_features=self.twin.in_features, out_features=self.twin.out_features)
        self._hold(self.twin._parameters)
        return self

    def restore(self) -> _Layer:
        """As it was."""
        if self.is_transposed:
            own = self._own_weight()
            own.data = own.data.contiguous()
        vars(self.module).clear()
        vars(self.module).update(self._attributes)
        self.module.__class__ = self.kind
        self._hold(self._parameters)
        return self

    def take_back(self) -> None:
        """Its own class again, with the numbers that it holds now, but where its form has become another."""
        import torch
        from torch import nn

        now = dict(self.module._parameters)
        tensors = [tensor for tensor in now.values() if tensor is not None]
        if issubclass(self.kind, nn.Linear) and list(now) == list(self._parameters):
            if self.kind.forward is nn.Linear.forward or all(type(each.data) is torch.Tensor for each in tensors):
                self.module.__class__ = (
                    self.kind
                )  # tensors of torchao answer to `linear`, and not to all that it may call
            return
        own = [tensor for tensor in self._parameters.values() if tensor is not None]
        kinds = [(type(tensor.data), tensor.shape) for tensor in tensors]
        if kinds != [(torch.Tensor, tensor.shape) for tensor in self.twin._parameters.values() if tensor is not None]:
            return
        for tensor, new in zip(own, tensors, strict=True):
            tensor.data = new.data.t() if self.is_transposed and new.dim() > 1 else new.data
        self.restore()

    def _own_weight(self) -> torch.Tensor:
        weight: torch.Tensor = next(tensor for tensor in self._parameters.values() if tensor is not None)
        return weight

    def _hold(self, parameters: dict[str, Any]) -> None:
        held = dict(parameters)
        self.module._parameters.clear()
        self.module._parameters.update(held)


def _layer(module: nn.Module, tied: set[int]) -> _Layer | None:
    """The layer, where some nn.Linear over its numbers answers as it does to inputs of our own."""
    import torch

    if type(module).__module__.startswith(("torch.", "torchao.")) or module._modules or module._buffers:
        return None
    parameters = [parameter for parameter in module._parameters.values() if parameter is not None]
    if [parameter.dim() for parameter in parameters] not in ([2], [2, 1]):
        return None
    if any(type(p.data) is not torch.Tensor or p.is_meta or not p.is_floating_point() for p in parameters):
        return None
    for is_transposed in (False, True):
        if is_transposed and id(parameters[0]) in tied:  # a parameter of its own would hide what it shares
            continue
        twin = _linear(*parameters, is_transposed=is_transposed)
        if twin is not None and _answers_alike(module, twin):
            return _Layer(module, twin, is_transposed=is_transposed)
    return None


def _linear(weight: nn.Parameter, bias: nn.Parameter | None = None, *, is_transposed: bool) -> nn.Linear | None:
    """An nn.Linear that holds these parameters, or a view of the weight where it is transposed; None where the bias
    does not fit."""
    import torch
    from torch import nn

    inputs, outputs = weight.shape if is_transposed else reversed(weight.shape)
    if bias is not None and bias.shape != (outputs,):
        return None
    with torch.device("meta"):
        linear = nn.Linear(inputs, outputs, bias=bias is not None)
    linear.weight = nn.Parameter(weight.detach().t(), weight.requires_grad) if is_transposed else weight
    linear.bias = bias  # type: ignore[assignment]
    return linear.eval()


def _answers_alike(module: nn.Module, linear: nn.Linear) -> bool:
    import torch

    generator = torch.Generator().manual_seed(0)
    for size in PROBES:
        inputs = size * torch.randn(2, 3, linear.in_features, generator=generator)
        inputs = inputs.to(linear.weight)
        try:
            with torch.no_grad(), torch.random.fork_rng([]):
                if not same_answers(module.forward(inputs), linear(inputs)):
                    return False
        except Exception:  # of another form than a Linear, which is an answer, too
            return False
    return True
