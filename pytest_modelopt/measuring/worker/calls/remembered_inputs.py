"""Models that know inputs again by their address, identity or content, which leaves nothing in them to be noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_modelopt.optimizing.calling import Inputs, call_on, fresh
from pytest_modelopt.optimizing.modules.nested_values import mapped, tensors
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step


def remembers(model: Callable[..., Any], inputs: Inputs) -> str:
    """In words, how another call on `inputs` differs from one on a copy; empty where both do the same work.

    `inputs` are those of the last call, and no call has left traces in them. A model that runs no operators of torch,
    or that fails here, is not found out. What torch draws at random is the same in each call, and is drawn again later.
    """
    copies: list[Inputs] = []  # all at once, so that none has the address of another

    def again() -> int:
        return operators(model, inputs)

    def on_a_copy() -> int:
        copies.append(fresh(inputs))
        return operators(model, copies[-1])

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
    return f"remembers its inputs (it runs {found[0]} operators on the same ones again, and {found[1]} on a copy)"


def knows_content(model: Callable[..., Any], inputs: Inputs) -> str:
    """In words, that the model answers inputs whose numbers it has seen without the work for others; empty otherwise.

    `inputs` were called before. Two others, each called twice, tell a cache from a model whose work depends on them.
    """
    counts = []
    try:
        with step_by_step():
            seen = operators(model, fresh(inputs))
            for number in (1, 2):
                other = _others(inputs, number)
                if other is None or (first := operators(model, fresh(other))) <= seen:
                    return ""
                counts.append((first, operators(model, fresh(other))))
    except Exception:  # as above
        return ""
    if counts[0] != counts[1] or counts[0][1] != seen:
        return ""
    return (
        f"recognizes inputs by their content, and answers from a cache (it runs {seen} operators on inputs that it has "
        f"seen, and {counts[0][0]} on others), so timed calls would time a lookup: turn the cache off in the factory"
    )


def _others(inputs: Inputs, number: int) -> Inputs | None:
    """Inputs of the same form with other numbers: floating-point ones a little larger, else rows moved on; without
    tensors, texts with their words moved on. None where there are none."""
    given = tensors(inputs)
    if not given:
        made = mapped(inputs, lambda leaf: _moved_on(leaf, number) if isinstance(leaf, str) else leaf)
        return None if made == inputs else made
    is_float = any(tensor.is_floating_point() for tensor in given)

    def changed(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        if is_float:
            return tensor * (1 + number / 1024) if tensor.is_floating_point() else tensor
        return tensor.roll(number, -1) if tensor.ndim > 1 else tensor

    with torch.inference_mode(False), torch.no_grad():
        made = mapped(inputs, changed)
        return None if all(map(torch.equal, given, tensors(made))) else made


def _moved_on(text: str, number: int) -> str:
    """The same words, or the characters of a single one, in another order."""
    words = text.split(" ")
    parts, between = (words, " ") if len(words) > 1 else (list(text), "")
    by = number % max(1, len(parts))
    return between.join(parts[by:] + parts[:by])


def operators(model: Callable[..., Any], inputs: Inputs) -> int:
    """How many operators of torch one call runs; what it draws at random is drawn again later."""
    devices = list({tensor.device for tensor in tensors(inputs) if tensor.is_cuda})
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
