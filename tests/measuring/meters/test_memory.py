"""The tensor meter, to the byte, against models counted by hand."""

from __future__ import annotations

import copy
import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pytest_modelopt.measuring.worker.files.size import saved_bytes
from pytest_modelopt.measuring.worker.memory.tensor_meter import Unaccounted, call_peak_bytes, weights_bytes
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context

pytestmark = pytest.mark.usefixtures("one_thread")


def peak(model: nn.Module, *inputs: torch.Tensor) -> int:
    with torch.inference_mode():
        model(*inputs)
        return call_peak_bytes(lambda: model(*inputs))


def test_a_linear_layer_is_its_weights_and_its_output() -> None:
    model = nn.Linear(1000, 500)
    assert weights_bytes(model) == 4 * (1000 * 500 + 500) == 2_002_000
    assert peak(model, torch.zeros(32, 1000)) == 4 * 32 * 500 == 64_000


def test_a_chain_frees_what_it_no_longer_needs() -> None:
    """Five layers of 1000: at most two neighbouring activations live at once, not six."""
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(5)))
    assert weights_bytes(model) == 5 * 4 * (1000 * 1000 + 1000)
    assert peak(model, torch.zeros(32, 1000)) == 2 * 4 * 32 * 1000


def test_the_peak_repeats_to_the_byte() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    inputs = torch.randn(2, 3, 32, 32)
    assert len({peak(model, inputs) for _ in range(5)}) == 1


def test_gradients_count_beside_the_weights_and_are_not_saved() -> None:
    """So a model that was trained in its factory is saved in fewer bytes than it holds."""
    model, weights = nn.Linear(64, 64), 4 * (64 * 64 + 64)
    model(torch.ones(1, 64)).sum().backward()
    assert weights_bytes(model) == 2 * weights
    assert weights < saved_bytes(model) < 1.5 * weights
    model.zero_grad()
    assert weights_bytes(model) == weights


def test_tied_weights_and_views_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(100, 16)
            self.output = nn.Linear(16, 100, bias=False)
            self.output.weight = self.embedding.weight
            self.register_buffer("first_row", self.embedding.weight.detach()[0])

    assert weights_bytes(Tied()) == 4 * 100 * 16


def test_buffers_and_tensors_in_plain_attributes_count() -> None:
    class Holder:
        def __init__(self) -> None:
            self.table = torch.zeros(7)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.zeros(10, dtype=torch.bool), persistent=False)
            self.cache = {"keys": [torch.zeros(5)], "none": None}
            self.holder = Holder()

    assert weights_bytes(Model()) == 10 + 4 * 5 + 4 * 7


def test_packed_int8_weights_are_not_nothing() -> None:
    """Hand-counted: 500,000 int8 weights in one byte each, and a float bias. torch quantizes dynamically per tensor."""
    model = nn.Sequential(nn.Linear(1000, 500))
    inputs = torch.zeros(32, 1000)
    done = optimize(model, parse("int8-dynamic").steps, Context(inputs, None, 0))
    assert sum(p.numel() for p in done.model.parameters()) == 0, "this is what a naive count would report"
    assert weights_bytes(done.model) == 1000 * 500 + 4 * 500


def test_packed_per_channel_weights_carry_their_scales() -> None:
    """int8-static: per output channel a float64 scale and an int64 zero point beside weights and float bias."""
    model = nn.Sequential(nn.Linear(64, 32)).eval()
    inputs = torch.randn(8, 64)
    done = optimize(model, parse("int8-static").steps, Context(inputs, lambda: iter([inputs]), 0))
    packed = 64 * 32 + 4 * 32 + 32 * (8 + 8)
    input_scale_and_zero_point = 4 + 8  # the observed range of the input: float32 scale, int64 zero point, as buffers
    assert weights_bytes(done.model) == packed + input_scale_and_zero_point


def test_packed_recurrent_weights_count() -> None:
    model = nn.Sequential(nn.GRU(40, 64, batch_first=True))
    done = optimize(model, parse("int8-dynamic").steps, Context(torch.zeros(1, 5, 40), None, 0))
    gates = 3 * 64
    assert weights_bytes(done.model) == gates * 40 + gates * 64 + 2 * 4 * gates


def test_pruning_masks_make_a_model_bigger() -> None:
    model = nn.Linear(100, 100)
    before = weights_bytes(model)
    prune.l1_unstructured(model, "weight", 0.5)  # type: ignore[no-untyped-call]
    assert weights_bytes(model) == before + 2 * 4 * 100 * 100  # the mask, and the product that the hook keeps


def test_sparse_weights_count_values_and_indices() -> None:
    weight = torch.zeros(10, 10)
    weight[0, :3] = 1
    model = nn.Module()
    model.sparse = weight.to_sparse()
    assert weights_bytes(model) == 3 * (4 + 2 * 8)  # three float32 values, two int64 coordinates each


def test_a_wrapper_subclass_counts_what_it_holds() -> None:
    class Halved(torch.Tensor):
        inner: torch.Tensor  # type: ignore[assignment]

        @staticmethod
        def __new__(cls: type[Halved], inner: torch.Tensor) -> Halved:
            wrapper = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32)
            wrapper.inner = inner
            return wrapper

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["inner"], None

        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
            raise RuntimeError("only counted here")

    model = nn.Module()
    model.weight = Halved(torch.zeros(50, dtype=torch.int8))
    assert weights_bytes(model) == 50


def test_what_cannot_be_counted_is_said() -> None:
    model = nn.Linear(10, 10, device="meta")
    with pytest.raises(Unaccounted, match="meta"):
        weights_bytes(model)


def test_weight_only_quantization_that_rebuilds_floats_shows_in_the_peak() -> None:
    """int8 at rest, float at each call: resident bytes fall by three quarters, the peak of the call rises."""

    class WeightOnly(nn.Module):
        scale: torch.Tensor
        weight: torch.Tensor

        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.register_buffer("scale", linear.weight.detach().abs().max() / 127)
            self.register_buffer("weight", (linear.weight.detach() / self.scale).round().to(torch.int8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.weight.float() * self.scale).T

    linear = nn.Linear(1000, 500, bias=False)
    model = WeightOnly(copy.deepcopy(linear))
    assert weights_bytes(model) == 500_000 + 4
    assert peak(model, torch.zeros(1, 1000)) == 2 * 4 * 500_000  # the floats, and the floats times the scale


# --- nothing that the model holds counts as zero, or twice -----------------------------------------------------------


class Slotted:
    __slots__ = ("table",)

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table


def _closure(table: torch.Tensor) -> object:
    return lambda: table


HOLDERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "slots": Slotted,
    "deque": lambda t: deque([t]),
    "partial": lambda t: functools.partial(torch.add, t),
    "closure": _closure,
    "numpy": lambda t: t.numpy(),
    "storage": lambda t: t.untyped_storage(),
    "distribution": lambda t: torch.distributions.Categorical(logits=t, validate_args=False),
    "nested": lambda t: [{"a": (t,)}],
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_tensors_count_wherever_the_model_keeps_them(kind: str) -> None:
    model = nn.Module()
    model.held = HOLDERS[kind](torch.zeros(1000))
    assert weights_bytes(model) >= 4000


def test_a_hooks_tensor_counts() -> None:
    model = nn.Linear(2, 2)
    table = torch.zeros(1000)
    model.register_forward_hook(lambda *_, table=table: None)
    assert weights_bytes(model) == 4000 + 4 * 6


def test_overlapping_memory_counts_once() -> None:
    whole = torch.zeros(1000).numpy()
    model = nn.Module()
    model.a, model.b, model.c = (
        torch.from_numpy(whole[:600]),
        torch.from_numpy(whole[400:]),
        torch.from_numpy(whole[:5]),
    )
    assert weights_bytes(model) == 4000
