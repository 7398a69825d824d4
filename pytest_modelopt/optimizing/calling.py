"""How a model is called on one batch of inputs: the one place that knows positional and keyword arguments."""

from __future__ import annotations

import contextlib
import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from pytest_modelopt.optimizing.modules.nested_values import tensors

Inputs: TypeAlias = Any
"""One batch: a tuple (positional arguments), a dict (keyword arguments), or anything else as one argument: a tensor, a
list, a dataclass. In them are tensors, texts, numbers, None, and nests of these."""


Place: TypeAlias = "tuple[str, int]"
places_of_calls: set[Place] = set()
"""Where the inputs of all calls in this process were: a model may know inputs again by their place."""


class ForOneCall:
    """A module that is prepared for the sizes of one call; calls of other sizes work, and take longer."""

    @abstractmethod
    def stand_for(self, inputs: Inputs) -> None:
        """Be prepared for a call with tensors of these sizes instead."""


Run: TypeAlias = "Callable[[Callable[..., Any], Inputs], Any]"
"""(model, inputs) -> what a call of it gives."""


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass, on a copy of `inputs`.

    Whatever is called more than once is called so: a model that writes into its inputs (`x.div_(255)`) or keeps them
    would otherwise work on others from the second call on.
    """
    return in_one_process(on(model, fresh(inputs)))


_Result = TypeVar("_Result")


def in_one_process(called: Callable[[], _Result]) -> _Result:
    """What it returns, in this process alone. One that the project's code forks and that comes back from there as well
    ends here: it would make all further calls, too, each of which doubles the processes."""
    own = os.getpid()
    try:
        return called()
    finally:
        if os.getpid() != own:
            os._exit(0)


def call_on(model: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass on these very inputs: `model(x)` for a tensor, `model(*x)` for a tuple, `model(**x)` for a dict.

    A namedtuple, such as `torch.nn.utils.rnn.PackedSequence`, is one argument. A model with a function of the project's
    that calls it (`CalledModel`) gets the inputs as they are.
    """
    places_of_calls.update(places(inputs))
    return on(model, inputs)()


def on(model: Callable[..., Any], inputs: Inputs) -> Callable[[], Any]:
    """The call of `call_on`, to be made later: how it looks is decided now, and nothing is looked up in it."""
    if getattr(type(model), "takes_inputs_whole", False):
        whole: Any = model
        function, alone = whole.function, whole.alone
        return lambda: function(alone, inputs)
    if isinstance(inputs, Mapping):
        return lambda: model(**inputs)
    if type(inputs) is tuple:
        return lambda: model(*inputs)
    return lambda: model(inputs)


def places(inputs: Inputs) -> set[Place]:
    """By what a model may know the tensors in it again without holding them: identity, and address of their numbers."""
    found: set[Place] = set()
    for tensor in tensors(inputs):
        found.add(("id", id(tensor)))
        with contextlib.suppress(Exception):  # of a layout that has no address, or in a trace
            found.add(("at", tensor.data_ptr()))
    return found - {("at", 0)}  # without numbers


def fresh(inputs: Inputs) -> Inputs:
    """Inputs that no call has touched: copies in memory of their own. Those that share memory share it as before."""
    import torch

    with torch.inference_mode(False):  # ordinary tensors, as a user's loader gives them
        compressed = [tensor for tensor in tensors(inputs) if tensor.layout in _compressed()]
        return copy.deepcopy(inputs, {id(tensor): tensor.detach().clone() for tensor in compressed})


def _compressed() -> tuple[Any, ...]:
    """Layouts of sparse tensors that `copy.deepcopy` fails on."""
    import torch

    return torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc
