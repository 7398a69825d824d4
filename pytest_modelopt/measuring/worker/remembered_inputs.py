"""Models that know inputs again by their address or identity, which leaves nothing in them that could be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_modelopt.optimizing.calling import Inputs, call_on, fresh, tensors_of
from pytest_modelopt.optimizing.uncompiled import step_by_step


def remembers(model: Callable[..., Any], inputs: Inputs) -> str:
    """In words, how another call on `inputs` differs from one on a copy; empty where both do the same work.

    `inputs` are those of the last call, and no call has left traces in them. A model that runs no operators of torch,
    or that fails here, is not found out. What torch draws at random is the same in each call, and is drawn again later.
    """
    copies: list[Inputs] = []  # all at once, so that none has the address of another

    def again() -> int:
        return _operators(model, inputs)

    def on_a_copy() -> int:
        copies.append(fresh(inputs))
        return _operators(model, copies[-1])

    try:
        with step_by_step():
            found = again(), on_a_copy()
            if found[0] == found[1]:
                return ""
            again()  # many know only the inputs of their last call
            if (again(), on_a_copy()) != found:  # it does less from call to call, or what chance tells it
                return ""
    except Exception:  # looking must not cost the model anything
        return ""
    return f"remembers its inputs (operators that it runs on the same ones again: {found[0]}, on a copy: {found[1]})"


def _operators(model: Callable[..., Any], inputs: Inputs) -> int:
    """How many operators of torch one call runs."""
    devices = list({tensor.device for tensor in tensors_of(inputs) if tensor.is_cuda})
    with torch.random.fork_rng(devices), _Counter() as counter:  # type: ignore[no-untyped-call]
        call_on(model, inputs)
        return int(counter.operators)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    supports_higher_order_operators = True

    operators = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports the compiler at the first operator, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))
