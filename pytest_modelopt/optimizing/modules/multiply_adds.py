"""How many multiplications with additions each module of a model does in one call, counted by torch's FLOP counter."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_modelopt.optimizing.calling import Inputs, call
from pytest_modelopt.optimizing.describe import author_name
from pytest_modelopt.optimizing.modules.fused_path import unfused
from pytest_modelopt.optimizing.modules.sealed import sealed_modules
from pytest_modelopt.optimizing.modules.uncompiled import step_by_step

if TYPE_CHECKING:
    from torch import nn


def multiply_adds(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Multiply-adds of one call by module name ('' is the model itself), those of its children not included.

    Matrix products and convolutions count, also those between activations, as attention does; elementwise work does
    not. A module that is called several times counts each time, under its first name. Empty where the model cannot be
    counted: one that runs on another runtime or on packed weights, or that does not call its layers as modules.
    """
    import torch
    from torch.utils.flop_counter import sdpa_flop_count

    attention_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch's own table lacks it

    def attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    if sealed_modules(model):
        return {}
    counter = _counter_class()(display=False, custom_mapping={attention_on_cpu: attention_flop})
    try:
        with torch.no_grad(), unfused(), step_by_step(), _without_mkldnn(model), counter:
            call(model, inputs)
    except Exception:
        return {}
    totals = _by_name({name: sum(found.values()) // 2 for name, found in counter.flop_counts.items()}, model)
    counted: Counter[str] = Counter()
    for name in totals:
        counted[author_name(name)] += _own(name, totals)
    return {name: own for name, own in counted.items() if own > 0}


@cache
def _counter_class() -> Any:
    """torch's counter, which imports no compiler: as torch has it, that takes seconds at the first operator it sees."""
    from torch.utils import flop_counter

    plain: Any = getattr(flop_counter._FlopCounterMode.__torch_dispatch__, "__wrapped__", None)
    if plain is None:
        return flop_counter.FlopCounterMode

    class Mode(flop_counter._FlopCounterMode):  # type: ignore[no-untyped-call]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # what the compiler would skip does not matter: the model runs uncompiled here

        __torch_dispatch__ = plain

    class Counter(flop_counter.FlopCounterMode):
        def __enter__(self) -> Counter:
            self.flop_counts.clear()
            self.mod_tracker.__enter__()  # type: ignore[no-untyped-call]
            self.mode = Mode(self)
            self.mode.__enter__()  # type: ignore[no-untyped-call]
            return self

    return Counter


def _by_name(totals: dict[str, int], model: nn.Module) -> dict[str, int]:
    """The counter puts the root's class before each name."""
    root = type(model).__name__
    return {
        "" if name == root else name.removeprefix(f"{root}."): count
        for name, count in totals.items()
        if name != "Global"
    }


def _own(name: str, totals: dict[str, int]) -> int:
    """What `name` does without the counted modules right below it."""
    inside = [other for other in totals if other != name and (not name or other.startswith(f"{name}."))]
    below = [other for other in inside if not any(other.startswith(f"{between}.") for between in inside)]
    return totals[name] - sum(totals[other] for other in below)


@contextlib.contextmanager
def _without_mkldnn(model: nn.Module) -> Iterator[None]:
    """Run recurrent layers as the products that they consist of: oneDNN's are not counted."""
    import torch
    from torch import nn

    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.enabled
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        mkldnn.enabled = False
    try:
        yield
    finally:
        mkldnn.enabled = before
