"""The tensor meter against real torchao tensors counted by hand, and against memray, which knows nothing of tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import memray
import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory.tensor_meter import call_peak_bytes, weights_bytes
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context
from pytest_modelopt.results.metric import MetricSpec

pytestmark = pytest.mark.usefixtures("one_thread")


def peak(model: nn.Module, inputs: torch.Tensor) -> int:
    with torch.inference_mode():
        model(inputs)
        return call_peak_bytes(lambda: model(inputs))


# --- torchao, counted by hand ----------------------------------------------------------------------------------------


def quantized(model: nn.Module, config: str) -> nn.Module:
    """The model with its Linear weights as torchao's tensors."""
    from torchao import quantization

    quantization.quantize_(model, getattr(quantization, config)())
    return model.eval()


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1000, 500))


INT8_LINEAR = 500 * 1000 + 500 * (4 + 1) + 4 * 500
"""A byte for each weight; for each of 500 rows a float32 scale and an int8 zero point; a float32 bias."""


@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchaos_int8_weights_are_counted_with_their_scales_and_zero_points(config: str) -> None:
    model = quantized(linear(), config)
    assert sum(p.numel() * p.element_size() for p in model.parameters()) == 4 * (500_000 + 500), "what a naive sum says"
    assert weights_bytes(model) == INT8_LINEAR == 504_500


def test_the_float_weights_that_torchao_rebuilds_are_in_the_peak_of_the_call() -> None:
    """Eager weight-only int8 saves three quarters at rest, nothing while it runs: all floats, and 32 x 500 outputs."""
    model = quantized(linear(), "Int8WeightOnlyConfig")
    assert peak(model, torch.zeros(32, 1000)) == 4 * 500 * 1000 + 4 * 32 * 500


def test_torchaos_dynamic_int8_needs_wider_weights_in_eager_mode_too() -> None:
    """On a processor with AVX512's VNNI and without AMX it sums up the weights in 32 bits: four bytes for each of them.

    Elsewhere its kernel needs no more than the inputs in int8 and the outputs, 500 in int32 and in float32.
    """
    from torchao.utils import _cpu_is_amx_tile_supported, _cpu_is_vnni_supported

    model = quantized(linear(), "Int8DynamicActivationInt8WeightConfig")
    found = peak(model, torch.zeros(1, 1000))
    if _cpu_is_vnni_supported() and not _cpu_is_amx_tile_supported():
        assert 4 * 500 * 1000 <= found < 1.1 * 4 * 500 * 1000
    else:
        assert 4 * 500 <= found < 16_000


def test_tied_torchao_weights_and_what_stays_float_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(1000, 500)
            self.embedding = nn.Embedding(10, 1000)
            self.register_buffer("scale", torch.ones(1000))

        def forward(self, x: torch.Tensor) -> Any:
            return self.first(self.embedding(x) * self.scale)

    model: Any = quantized(Tied(), "Int8WeightOnlyConfig")
    model.again = model.first
    model.weight_itself = model.first.weight
    assert weights_bytes(model) == INT8_LINEAR + 4 * 10 * 1000 + 4 * 1000


def test_a_saved_and_loaded_torchao_model_has_the_same_bytes(tmp_path: Path) -> None:
    model = quantized(linear(), "Int8WeightOnlyConfig")
    size.save(model, tmp_path / "model.pt")
    loaded = size.load(tmp_path / "model.pt")
    assert weights_bytes(loaded) == INT8_LINEAR
    assert peak(loaded, torch.zeros(32, 1000)) == peak(model, torch.zeros(32, 1000))


# --- convolutions, counted by hand -----------------------------------------------------------------------------------


def test_a_convolution_with_batch_norm_is_its_tensors_and_two_activations() -> None:
    """Weights: 3*16 filters of 3x3 and 16 biases; of the norm four vectors of 16 and an int64 counter of batches."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)).eval()
    assert weights_bytes(model) == 4 * (3 * 16 * 9 + 16) + 4 * 4 * 16 + 8
    output = 4 * 2 * 16 * 32 * 32
    measured = peak(model, torch.randn(2, 3, 32, 32))
    # The norm's input and its output live at once, with a scale and a shift for each channel. On some machines the
    # convolution keeps blocked copies of its input (16 channels instead of 3) and of its filters beside them.
    least = 2 * output + 2 * 4 * 16
    assert least <= measured <= least + output + 4 * 16 * 16 * 9


# --- memray, from outside --------------------------------------------------------------------------------------------


def by_memray(act: Callable[[], object], file: Path) -> tuple[int, int]:
    """(peak, what is still allocated afterwards) of `act`, in bytes."""
    file.unlink(missing_ok=True)
    with memray.Tracker(file):
        kept = act()
    reader = memray.FileReader(file)
    left = sum(record.size for record in reader.get_leaked_allocation_records(merge_threads=True))
    del kept
    result = reader.metadata.peak_memory, left
    reader.close()
    return result


def mlp() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 256)]
    return nn.Sequential(*layers).eval(), torch.randn(256, 1024)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 512, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 28 * 28, 10)).eval(), torch.randn(4, 3, 32, 32)


def packed() -> tuple[nn.Module, torch.Tensor]:
    model, inputs = mlp()
    return optimize(model, parse("int8-dynamic").steps, Context(inputs, None, 0)).model, inputs


def torchao() -> tuple[nn.Module, torch.Tensor]:
    model, inputs = mlp()
    return quantized(model, "Int8WeightOnlyConfig"), inputs


MODELS: dict[str, Any] = {"mlp": mlp, "cnn": cnn, "packed": packed, "torchao": torchao}
# Beside tensors memray sees Python's objects, and what kernels and packing allocate for themselves: a few hundredths.
# fbgemm pads packed weights to its blocks and keeps sums of columns.
MOST = {"mlp": 1.02, "cnn": 1.02, "packed": 1.08, "torchao": 1.02}


@pytest.mark.parametrize("kind", MODELS)
def test_memray_finds_hardly_more_resident_than_the_tensor_meter(kind: str, tmp_path: Path) -> None:
    model, _ = MODELS[kind]()
    size.save(model, tmp_path / "model.pt")
    size.load(tmp_path / "model.pt")  # what loading imports for the first time is not the model's
    _, left = by_memray(lambda: size.load(tmp_path / "model.pt"), tmp_path / "memray.bin")
    counted = weights_bytes(model)
    assert counted <= left <= MOST[kind] * counted


@pytest.mark.parametrize("kind", MODELS)
def test_memray_finds_hardly_a_higher_peak_than_the_tensor_meter(kind: str, tmp_path: Path) -> None:
    model, inputs = MODELS[kind]()
    counted = peak(model, inputs)
    with torch.inference_mode():
        highest, _ = by_memray(lambda: model(inputs), tmp_path / "memray.bin")
    assert counted <= highest <= MOST[kind] * counted


# --- the same in every process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [None, "int8-dynamic", "prune-structured(ratio=0.5) + int8-dynamic"])
def test_separate_worker_processes_read_the_same_to_the_byte(recipe: str | None, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    variant = Variant(
        model="example_project.vision:load_model",
        recipe=parse(recipe) if recipe else None,
        data="example_project.vision:test_data",
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(root,),
        working_directory=root,
    )
    read = []
    for name in ("one", "other"):
        worker = Worker(variant, tmp_path, name)
        try:
            for step in ("load", *(["optimize"] if recipe else [])):
                worker.request(step, limit_s=120)
            read.append(worker.request("memory", limit_s=120))
        finally:
            worker.close()
    assert read[0] == read[1]
    assert read[0].weights_bytes > 0
    assert read[0].call_peak_bytes > 0
