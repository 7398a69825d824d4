"""What a file is made of, and in which layer's call a peak is reached: figures that can be counted by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory.file_makeup import makeup
from pytest_modelopt.measuring.worker.memory.tensor_meter import call_peak_bytes
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import PlannedCase
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.observations import Makeup


class Scratch(nn.Module):
    """Asks for 4 bytes for each of `numbers`, and gives them back before it returns."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scratch = torch.full((self.numbers,), 1.0)
        return x + scratch[0]


def look(model: nn.Module, x: torch.Tensor, peak: Callable[[int], int] = lambda peak: peak) -> Makeup:
    def call() -> object:
        return model(x)

    with torch.inference_mode():
        call()
        return makeup(model, call, peak(call_peak_bytes(call)))


@pytest.mark.parametrize("widest", [0, 1, 2])
def test_the_layer_in_whose_call_the_peak_is_reached(widest: int) -> None:
    model = nn.Sequential(*(Scratch(100_000 if k == widest else 10_000) for k in range(3)))
    found = look(nn.Sequential(nn.Identity(), model), torch.zeros(8))
    assert found.peak_in == f"`1.{widest}` (Scratch) in aten::add"
    assert found.peak_own_bytes == 400_000 + 32  # what it asked for, and its answer


def test_the_tensors_of_torchscript_have_the_names_of_its_weights() -> None:
    layers = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(layers)
    for model, prefix in ((script, ""), (nn.Sequential(script), "0.")):
        found = look(model, torch.zeros(1, 64))
        weights = {"0.weight": 4 * 64 * 8, "0.bias": 4 * 8, "2.weight": 4 * 8 * 2, "2.bias": 4 * 2}
        assert found.tensors == {prefix + name: held for name, held in weights.items()}
        assert found.other_bytes == size.saved_bytes(model) - sum(weights.values())


def test_what_no_layer_asks_for_is_of_the_models_own_forward() -> None:
    assert look(Scratch(1000), torch.zeros(8)).peak_in == "its own forward (Scratch) in aten::add"


def test_another_peak_than_was_measured_is_explained_by_nothing() -> None:
    found = look(Scratch(1000), torch.zeros(8), lambda peak: peak + 4)
    assert (found.peak_in, found.peak_own_bytes) == ("", 0)


def test_the_tensors_of_a_file_and_all_else_in_it() -> None:
    model: Any = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 100, bias=False), nn.Linear(100, 50, bias=False))
    model[2].weight = model[0].weight
    model.register_buffer("mask", torch.zeros(30, dtype=torch.uint8))
    model.table = {"of": [torch.zeros(7), bytes(1000)], "none": None}
    found = look(nn.Sequential(model), torch.zeros(1, 100))
    assert found.tensors == {
        "0.0.weight": 20_000,
        "0.0.bias": 200,
        "0.1.weight": 20_000,
        "0.mask": 30,
        "0.table": 28 + 1000,
    }
    assert found.other_bytes == size.saved_bytes(nn.Sequential(model)) - sum(found.tensors.values())
    assert found.operations == {}


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.eye(4))

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + state @ self.inner)


class Unrolls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        state = torch.zeros(len(x), 4)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state)


def test_the_operations_of_a_graph_are_those_of_the_layers_that_it_unrolls() -> None:
    x = torch.zeros(2, 30, 4)
    graph = torch.export.export(Unrolls().eval(), (x,)).module()
    counts = look(graph, x).operations
    assert counts["cell (Cell)"] == 3 * 30
    assert counts["head (Linear)"] == 1
    assert counts["its own forward (Unrolls)"] in range(30, 35)  # one slice for each step


MODELS = """
import torch
from torch import nn

def wide():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (16, 4, 4)), nn.Conv2d(16, 256, 4), nn.Flatten(), nn.Linear(256, 2)
    ).eval()

def inputs():
    return torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
"""


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("recipe", ["int8-weight-only", "prune-structured(ratio=0.5)"])
def test_it_is_looked_at_where_a_figure_is_worse_or_breaks_a_limit(tmp_path: Path, recipe: str, breaks: bool) -> None:
    """int8-weight-only makes the file smaller, and the convolution's weight whole again within its call."""
    (tmp_path / "wide.py").write_text(MODELS, encoding="utf-8")
    of = Variant(
        model="wide:wide",
        recipe=parse(recipe),
        data=None,
        calibration=None,
        example_inputs="wide:inputs",
        metric=MetricSpec(),
        import_paths=(str(tmp_path),),
        working_directory=str(tmp_path),
        environment=environment_now(),
    )
    runner = Runner(StepLimits(time_limit_s=0.1, step_limit_s=60), Silent(), lambda case: breaks)
    try:
        case = runner.measure(
            PlannedCase(id="id", model="m", recipe=recipe, limits=(), batch_size=1), of, lambda *_: True
        )
    finally:
        runner.close()
    assert case.error is None, case.error
    assert case.variant is not None
    assert case.reference is not None
    seen = [side.observations.makeup if side.observations else None for side in (case.reference, case.variant)]
    worse = (case.variant.memory_bytes or 0) > (case.reference.memory_bytes or 0)
    assert worse == (recipe == "int8-weight-only")
    assert [each is not None for each in seen] == [worse or breaks] * 2
    if worse:
        assert seen[1] is not None
        assert seen[1].peak_in.startswith("`1.inner` (Conv2d)")
