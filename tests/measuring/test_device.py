"""Variants on a GPU, where there is one; and what is said where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.device import Device
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.selftest import trial

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and this machine has none")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(1024, 4096), nn.Linear(4096, 1024)
    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

def model():
    torch.manual_seed(0)
    return Net().eval()

def data():
    inputs = torch.randn(64, 1024, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model()(inputs).argmax(1)
"""
WEIGHTS = 4 * (1024 * 4096 + 4096 + 4096 * 1024 + 1024)


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Variant]:
    (tmp_path / "device_user.py").write_text(SOURCE, encoding="utf-8")

    def make(device: str, recipe: str | None = None) -> Variant:
        folder = str(tmp_path)
        return Variant(
            "device_user:model",
            parse(recipe) if recipe else None,
            "device_user:data",
            None,
            None,
            MetricSpec(),
            (folder,),
            folder,
            device=device,
        )

    return make


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Variant], Worker]]:
    workers: list[Worker] = []

    def make(variant: Variant) -> Worker:
        workers.append(Worker(variant, tmp_path, f"worker-{len(workers)}"))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


# --- without a GPU ---------------------------------------------------------------------------------------------------


@without_gpu
def test_a_gpu_that_is_not_there_is_said_with_the_reason() -> None:
    with pytest.raises(VariantError, match=r"device: cuda was asked for, but .*; write `cpu`"):
        Device("cuda")


@without_gpu
def test_a_case_for_a_gpu_is_an_error_where_there_is_none(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker]
) -> None:
    with pytest.raises(WorkerFailed, match="device: cuda:0 was asked for, but"):
        start(variant("cuda:0")).request("load", limit_s=60)


def test_on_the_cpu_nothing_is_moved() -> None:
    inputs = {"x": torch.zeros(2)}
    assert Device("cpu").take(inputs) is inputs
    assert Device("cpu").bring_back(inputs) is inputs
    assert Device("cpu").gpu() is None


# --- on a GPU --------------------------------------------------------------------------------------------------------


@needs_gpu
def test_memory_on_a_gpu_is_the_weights_and_the_allocators_peak(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker]
) -> None:
    """By hand: weights; at the peak the hidden layer twice (before and after relu), and the workspaces of cuBLAS."""
    found = []
    for _ in range(2):
        worker = start(variant("cuda"))
        worker.request("load", limit_s=120)
        found.append(worker.request("memory", limit_s=60))
    assert found[0] == found[1], "to the byte, in another process"
    assert found[0].weights_bytes == WEIGHTS
    hidden = 4 * 4096
    assert hidden <= found[0].call_peak_bytes <= 4 * hidden + 128 * 2**20
    assert found[0].reserved_bytes >= WEIGHTS


@needs_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_both_names_of_the_first_gpu_are_the_same_device(name: str) -> None:
    assert Device(name).torch_device == torch.device("cuda", 0)
    assert Device(name).gpu() is not None


@needs_gpu
def test_a_live_module_on_a_gpu_is_counted_like_one_that_a_factory_makes(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker], tmp_path: Path
) -> None:
    """Carried in a file, it must not lie on the GPU before its memory is measured."""
    from pytest_modelopt.measuring.carried_objects import carry
    from pytest_modelopt.results.source import Carried

    model = nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024)).eval().to("cuda")
    inputs = torch.zeros(1, 1024, device="cuda")
    carry({"model": model, "example_inputs": inputs}, tmp_path / "carried.pt")
    live = replace(
        variant("cuda"),
        model=Carried("model"),
        data=None,
        example_inputs=Carried("example_inputs"),
        carried_file=str(tmp_path / "carried.pt"),
    )
    worker = start(live)
    worker.request("load", limit_s=120)
    assert worker.request("memory", limit_s=60).weights_bytes == WEIGHTS


@needs_gpu
def test_process_memory_is_not_measured_where_the_model_is_on_a_gpu(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker]
) -> None:
    with pytest.raises(WorkerFailed, match="process memory is the host's"):
        start(variant("cuda")).request("process_memory", model="m", inputs="i", runtime=None, limit_s=60)


@needs_gpu
def test_answers_of_a_gpu_are_scored_like_those_of_the_cpu(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker]
) -> None:
    scores = []
    for device in ("cpu", "cuda"):
        worker = start(variant(device))
        worker.request("load", limit_s=120)
        scores.append(worker.request("score", limit_s=60))
    assert scores[0].data_fingerprint == scores[1].data_fingerprint
    assert scores[1].score == 1.0


@needs_gpu
def test_a_recipe_for_the_cpu_is_refused_on_a_gpu(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker]
) -> None:
    worker = start(variant("cuda", "int8-dynamic"))
    worker.request("load", limit_s=120)
    with pytest.raises(WorkerFailed, match="int8-dynamic makes variants that run on cpu only, but `device` is cuda"):
        worker.request("optimize", limit_s=60)


@needs_gpu
@pytest.mark.parametrize("recipe", ["low-rank(ratio=0.25)", "prune-unstructured(ratio=0.5)"])
def test_a_recipe_works_on_a_gpu(
    variant: Callable[..., Variant], start: Callable[[Variant], Worker], recipe: str
) -> None:
    worker = start(variant("cuda", recipe))
    worker.request("load", limit_s=120)
    assert worker.request("optimize", limit_s=60).coverage.share > 0
    assert worker.request("score", limit_s=60).examples == 64


@needs_gpu
@pytest.mark.parametrize(("slowdown", "outcome"), [(0.0, "pass"), (1.0, "fail")])
def test_pairs_on_a_gpu_come_to_the_right_verdict(
    variant: Callable[..., Variant], tmp_path: Path, slowdown: float, outcome: str
) -> None:
    done = trial(variant("cuda"), slowdown=slowdown, min_speedup=1 / 1.3, time_limit_s=20, folder=tmp_path)
    assert done.outcome(1 / 1.3) == outcome


@needs_gpu
def test_a_gpu_is_timed_by_its_own_clock() -> None:
    """A product of large matrices returns to the host long before it is done: the events see the whole of it."""
    device = Device("cuda")
    layer = nn.Linear(8192, 8192).to(device.torch_device)
    inputs = torch.zeros(8192, 8192, device=device.torch_device)
    device.clock(lambda: layer(inputs), 1)
    operations = 2 * 8192**3
    assert operations / (device.clock(lambda: layer(inputs), 1) / 1e9) < 1e16, "faster than any GPU"
