"""Calls of a model whose replaced layers compute what they did before: what then differs is the path that it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.answers import other_answers
from pytest_modelopt.optimizing.modules.own_behavior import same_answers

if TYPE_CHECKING:
    from torch import nn

OTHER_PATH = (
    "with them replaced the model answers differently, even where the new layers compute exactly the same: its "
    "forward asks for their class or an attribute (`isinstance(layer, nn.Linear)`, `hasattr(layer, ...)`) and goes "
    "another way; decide that once in `__init__` and keep the answer in an attribute of the model"
)


@contextlib.contextmanager
def computing_as(twins: Mapping[nn.Module, nn.Module]) -> Iterator[None]:
    """Each module computes what its twin does, and shows the twin's weights; for all other questions it is itself."""
    import torch
    from torch import nn

    classes = {type(module): type(module).__getattribute__ for module in twins}
    own = {kind: vars(kind).get("__getattribute__") for kind in classes}

    def read(module: Any, name: str) -> Any:
        twin = twins.get(module)
        if twin is None:
            return plainly_read(module, name)
        if name == "forward":
            return twin.forward
        value, weight = plainly_read(module, name), twin._parameters.get(name)
        if weight is None or not isinstance(value, torch.Tensor):
            return value
        return weight if isinstance(value, nn.Parameter) else weight.detach()

    def plainly_read(module: Any, name: str) -> Any:
        try:
            return classes[next(kind for kind in type(module).__mro__ if kind in classes)](module, name)
        except AttributeError:
            return type(module).__getattr__(module, name)

    for kind in classes:
        kind.__getattribute__ = read  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, method in own.items():
            if method is None:
                del kind.__getattribute__
            else:
                kind.__getattribute__ = method  # type: ignore[method-assign]


def is_other(answer: Any, other: Any) -> bool:
    """Whether two answers of one structure differ by more than rounding; whole numbers, where there are no others."""
    import torch
    from torch.utils import _pytree

    if any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in _pytree.tree_leaves(answer)):
        return bool(other_answers(answer, other))
    return not same_answers(answer, other)
