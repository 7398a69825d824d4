"""Process memory: fresh processes that load the saved variant and run it, by each meter, for torch and others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_modelopt.measuring.controller import fresh_processes
from pytest_modelopt.measuring.controller.fresh_processes import RUNS
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.controller.runner import Runner, StepLimits
from pytest_modelopt.measuring.controller.worker_context import Measured, WorkerContext
from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory.process_memory import load_saved
from pytest_modelopt.measuring.worker.memory.tensor_meter import ForeignRuntime, weights_bytes
from pytest_modelopt.optimizing.expression import Expression, parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.case import MeasuredCase, PlannedCase
from pytest_modelopt.results.measurement import Measurement, ProcessMemory
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.verdicts import Limit
from tests.measuring import foreign_models

ROOT = Path(__file__).parents[3]
MODELS = foreign_models.__name__
RUNTIMES = {"onnx_runtime": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
MIB = 1024 * 1024


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner(StepLimits(time_limit_s=0.1, step_limit_s=60), Silent())
    yield made
    made.close()


def variant(model: str, recipe: str | None = None, data: str = "head_data", folder: Path = ROOT) -> Variant:
    return Variant(
        model=f"{MODELS}:{model}" if folder == ROOT else model,
        recipe=parse(recipe) if recipe else None,
        data=f"{MODELS}:{data}" if folder == ROOT else data,
        calibration=None,
        example_inputs=None,
        metric=MetricSpec(),
        import_paths=(str(folder),),
        working_directory=str(folder),
        batch_size=4,
    )


def measured(runner: Runner, of: Variant, *limits: str) -> MeasuredCase:
    stated = tuple(Limit(name, 1e12, "1 TB", "error", "budgets.yaml", 1) for name in limits)
    case = PlannedCase(id="id", model="m", recipe=of.label, limits=stated, batch_size=of.batch_size)
    return runner.measure(case, of, lambda *_: True)


def sides(case: MeasuredCase) -> tuple[Measurement, Measurement]:
    assert case.error is None, case.error
    assert case.reference is not None
    assert case.variant is not None
    return case.reference, case.variant


# --- detection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_model_of_another_runtime_is_not_zero_bytes_but_named(kind: str) -> None:
    model = getattr(foreign_models, kind)()
    with torch.inference_mode():
        torch.testing.assert_close(model(foreign_models.inputs()), foreign_models.expected(), atol=1e-3, rtol=1e-3)
    assert list(model.parameters()) == [], "the naive count"
    for holder in (model, nn.Sequential(nn.Linear(2, 2), model)):
        with pytest.raises(ForeignRuntime, match="torch's allocator does not see") as found:
            weights_bytes(holder)
        assert found.value.runtime == RUNTIMES[kind]


def test_a_session_of_a_class_of_the_users_own_is_found_too() -> None:
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        pass

    model: Any = nn.Module()
    model.held = {"sessions": [Session(foreign_models.onnx_file(), providers=["CPUExecutionProvider"])]}
    with pytest.raises(ForeignRuntime, match="ONNX Runtime"):
        weights_bytes(model)


def test_a_users_module_with_a_similar_name_is_no_runtime() -> None:
    kind = type("Session", (), {"__module__": "onnxruntime_tools_of_ours"})
    model = nn.Linear(10, 10)
    model.held = kind()
    assert weights_bytes(model) == 4 * 110


# --- fresh processes, by memray --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RUNTIMES)
def test_the_weights_of_a_foreign_runtime_are_in_the_peak_of_its_process(kind: str, tmp_path: Path) -> None:
    """At least the weights once; at most five times: file, parsed model, weights, a packed copy, one in passing."""
    model, inputs = tmp_path / "model.pt", tmp_path / "inputs.pt"
    size.save(getattr(foreign_models, kind)(), model)
    size.save(foreign_models.inputs(), inputs)
    peaks = []
    for name in ("one", "other"):
        worker = Worker(variant(kind), tmp_path, name)
        try:
            arguments: dict[str, Any] = {"model": str(model), "inputs": str(inputs), "runtime": RUNTIMES[kind]}
            peak, meter = worker.request("process_memory", limit_s=60, **arguments)
        finally:
            worker.close()
        assert meter == "memray"
        peaks.append(peak)
    assert min(peaks) > foreign_models.WEIGHT_BYTES
    assert max(peaks) < 5 * foreign_models.WEIGHT_BYTES + 16 * MIB
    assert max(peaks) - min(peaks) < MIB


BIG = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 10)).eval()

def data():
    return torch.zeros(8, 2048), torch.zeros(8, dtype=torch.long)

class DiesWhenLoaded(nn.Linear):
    def __setstate__(self, state):
        import os
        os.kill(os.getpid(), 9)

def dies_when_loaded():
    return DiesWhenLoaded(2048, 10).eval()

class HangsWhenLoaded(nn.Linear):
    '''The first time only.'''
    def __setstate__(self, state):
        import os, time
        if os.path.exists("hung"):
            raise FileNotFoundError("weights.bin")
        open("hung", "w").close()
        time.sleep(600)

def hangs_when_loaded():
    return HangsWhenLoaded(2048, 10).eval()

class Refuses(nn.Linear):
    def __setstate__(self, state):
        raise FileNotFoundError("weights.bin")

def refuses():
    return Refuses(2048, 10).eval()
"""
BIG_BYTES = 4 * (2048 * 2048 + 2048 + 2048 * 10 + 10)
RECIPE = "prune-unstructured(ratio=0.5)"


@pytest.fixture
def users(tmp_path: Path) -> Callable[[str], Variant]:
    (tmp_path / "users.py").write_text(BIG, encoding="utf-8")
    return lambda name: variant(f"users:{name}", RECIPE, "users:data", tmp_path)


def test_a_torch_models_process_takes_its_weights_and_little_more(
    runner: Runner, users: Callable[..., Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 MB by hand; Python's objects, the buffers of the matrix kernels and eight rows add a megabyte or two.

    Nine fresh processes for two recipes: three of each variant, and three of the original.
    """
    started: list[str] = []
    fresh_run = fresh_processes._fresh_run

    def counted(context: WorkerContext, measured: Measured, *args: object, **kwargs: object) -> object:
        started.append(measured.variant.label)
        return fresh_run(context, measured, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(fresh_processes, "_fresh_run", counted)
    original, pruned = sides(measured(runner, users("model"), "max_process_memory"))
    other = replace(users("model"), recipe=parse("prune-unstructured(ratio=0.9)"))
    original_again, pruned_more = sides(measured(runner, other, "max_process_memory"))
    assert original_again.process_memory == original.process_memory
    assert started.count("original") == RUNS == 3
    assert len(started) == 3 * RUNS
    for side in (original, pruned, pruned_more):
        assert side.process_memory is not None
        assert side.process_memory.meter == "memray"
        assert len(side.process_memory.peaks_bytes) == RUNS
        assert min(side.process_memory.peaks_bytes) > BIG_BYTES
        assert max(side.process_memory.peaks_bytes) < BIG_BYTES + 4 * MIB
        assert side.process_memory.spread_bytes < MIB
        assert side.weights_bytes == BIG_BYTES, "the tensor meter stays what it was"


def test_without_a_limit_or_a_foreign_runtime_it_is_not_measured(runner: Runner, users: Callable[..., Variant]) -> None:
    case = measured(runner, users("model"), "max_memory")
    assert case.loading is None
    for side in sides(case):
        assert side.process_memory is None
        assert side.unmeasured == {}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("dies_when_loaded", "died during `balance`: ended by SIGKILL"),
        ("refuses", "cannot be loaded in a fresh process: FileNotFoundError: weights.bin"),
    ],
)
def test_what_goes_wrong_in_a_fresh_process_is_the_reason_and_nothing_else(
    runner: Runner, users: Callable[..., Variant], model: str, why: str
) -> None:
    case = measured(runner, users(model), "max_process_memory")
    for side in sides(case):
        assert side.process_memory is None
        assert why in side.unmeasured["process_memory"]
        assert side.weights_bytes == 4 * (2048 * 10 + 10), "everything else was measured"
    assert case.timing is not None


def test_a_hang_in_a_fresh_process_ends_at_the_step_limit(users: Callable[..., Variant]) -> None:
    runner = Runner(StepLimits(time_limit_s=0.1, step_limit_s=12), Silent())
    try:
        original, pruned = sides(measured(runner, users("hangs_when_loaded"), "max_process_memory"))
    finally:
        runner.close()
    assert "did not finish `balance` within 12 s (`step_limit`)" in original.unmeasured["process_memory"]
    assert "cannot be loaded in a fresh process" in pruned.unmeasured["process_memory"]


# --- comparisons with a foreign runtime ------------------------------------------------------------------------------


def test_a_foreign_part_makes_the_process_meter_that_of_both_sides(runner: Runner) -> None:
    """A head in torch, quantized, after a body in ONNX Runtime: the body's megabytes are on both sides."""
    case = measured(runner, variant("with_head", "int8-dynamic"))
    assert case.foreign_runtimes == ("ONNX Runtime",)
    for side in sides(case):
        assert side.runtime == "ONNX Runtime"
        assert side.weights_bytes is side.call_peak_bytes is side.memory_bytes is None
        assert side.unmeasured == {}
        assert side.process_memory is not None
        assert case.memory_peaks_bytes(side) == side.process_memory.peaks_bytes
        assert (case.memory_bytes(side) or 0) > foreign_models.WEIGHT_BYTES


def test_where_only_the_variant_is_foreign_the_original_is_read_by_the_process_meter_too(runner: Runner) -> None:
    of = replace(variant("in_torch", data="data"), recipe=Expression.of([foreign_models.ToOnnxRuntime()]))
    original, converted = sides(case := measured(runner, of))
    assert (original.runtime, converted.runtime) == (None, "ONNX Runtime")
    assert original.weights_bytes == foreign_models.WEIGHT_BYTES, "the tensor meter's figure is kept in the record"
    assert converted.weights_bytes is None
    assert original.process_memory is not None
    assert case.memory_peaks_bytes(original) == original.process_memory.peaks_bytes
    assert min(original.process_memory.peaks_bytes) > foreign_models.WEIGHT_BYTES
    assert (case.memory_bytes(converted) or 0) > foreign_models.WEIGHT_BYTES


def test_a_wrapper_that_cannot_be_saved_is_not_measured_and_says_why(runner: Runner) -> None:
    original, _ = sides(measured(runner, variant("unsavable_with_head", "int8-dynamic"), "max_memory"))
    assert original.runtime == "ONNX Runtime"
    assert original.process_memory is None
    assert "the model cannot be saved: TypeError" in original.unmeasured["process_memory"]


# --- the other meters ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.modules["memray"] = None  # as where it is not installed
from pathlib import Path
from pytest_modelopt.measuring.worker.memory import process_memory
from pytest_modelopt.measuring.protocol import VariantError

def measured(status):
    process_memory._STATUS = Path(status)
    return process_memory.peak_bytes(Path(sys.argv[1]), Path(sys.argv[2]), None)

try:
    measured("/absent/status")
except VariantError as error:
    print(error)
print(*measured("/proc/self/status"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel gives no VmHWM here")
def test_without_memray_the_kernels_high_water_mark_serves_and_without_it_the_extra_is_named(tmp_path: Path) -> None:
    """17 MB of weights; the pages of the libraries that the call touches come on top, some tens of megabytes."""
    size.save(nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 10)).eval(), tmp_path / "model.pt")
    size.save(torch.zeros(8, 2048), tmp_path / "inputs.pt")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "model.pt"), str(tmp_path / "inputs.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    without_any, with_status = done.stdout.splitlines()
    assert "memray is not installed (`pip install 'pytest-modelopt[memory]'`)" in without_any
    peak, meter = with_status.split()
    assert meter == "VmHWM"
    assert BIG_BYTES < int(peak) < BIG_BYTES + 60 * MIB


# --- the figures -----------------------------------------------------------------------------------------------------


def test_the_figure_is_the_median_run_and_the_spread_is_kept() -> None:
    memory = ProcessMemory((105, 100, 101), "VmHWM")
    assert (memory.bytes, memory.spread_bytes) == (101, 5)
    assert (ProcessMemory((), "memray").bytes, ProcessMemory((), "memray").spread_bytes) == (None, 0)


def test_a_refused_request_leaves_the_variants_own_worker_alive(tmp_path: Path) -> None:
    worker = Worker(variant("unsavable", data="data"), tmp_path, "w")
    try:
        worker.request("load", limit_s=60)
        with pytest.raises(WorkerFailed, match="the model cannot be saved"):
            worker.request("save", limit_s=60, path=str(tmp_path / "model.pt"))
        assert worker.is_alive
        worker.request("save_inputs", limit_s=60, path=str(tmp_path / "inputs.pt"))
        assert torch.equal(size.load(tmp_path / "inputs.pt"), foreign_models.inputs())
    finally:
        worker.close()


def test_a_model_that_cannot_be_loaded_is_told_of_runtimes_only_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"nothing that torch has saved")
    with pytest.raises(VariantError, match="cannot be loaded in a fresh process") as plain:
        load_saved(tmp_path / "model.pt", None)
    assert "runtime" not in str(plain.value)
    with pytest.raises(VariantError, match=r"a model that wraps a runtime \(ONNX Runtime\) must say what"):
        load_saved(tmp_path / "model.pt", "ONNX Runtime")
