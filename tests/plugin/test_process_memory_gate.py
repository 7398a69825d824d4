"""Process memory from budget to report, in users' tests: a limit on it, and models that wrap another runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx  # noqa: F401 -- pytester forgets what an inner run imported, and it cannot be imported twice
import onnxruntime  # noqa: F401
import pytest

from pytest_modelopt.results.json import read
from tests.plugin.small_project import one_case, run

Project = Callable[..., pytest.Pytester]

# A body in ONNX Runtime (a 64 x 3000 float32 matrix: 768,000 bytes) before a head in torch that recipes can change.
WRAPPED = """
from fractions import Fraction

import numpy

def onnx_file():
    from onnx import TensorProto, helper, numpy_helper
    weight = numpy.random.default_rng(0).standard_normal((64, 3000), dtype=numpy.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "body",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3000])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.file = onnx_file()
        self.head = nn.Linear(3000, 400)
        self.start()

    def start(self):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.start()

    def forward(self, x):
        return self.head(torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0]))

def wrapped():
    torch.manual_seed(0)
    return Wrapped().eval()
"""
BODY_BYTES = 4 * 64 * 3000
HEAD_BYTES = 4 * (3000 * 400 + 400)


def test_a_live_model_that_wraps_onnx_runtime_is_gated_by_process_memory(project: Project) -> None:
    result = run(
        project,
        WRAPPED
        + f"""
@pytest.mark.model_budget(max_memory="30 MB", max_process_memory="30 MB", max_size="10 MB")
def test_wrapped(modelopt):
    model = wrapped()
    result = modelopt(model, "int8-dynamic", data=labelled(model))
    assert result.original.runtime == result.variant.runtime == "ONNX Runtime"
    assert result.original.weights_bytes is None  # and not the bytes of the head alone
    assert min(result.original.process_memory.peaks_bytes) > {BODY_BYTES + HEAD_BYTES}
    assert min(result.variant.process_memory.peaks_bytes) > {BODY_BYTES + HEAD_BYTES // 4}
    original, variant = result.original.process_memory.bytes, result.variant.process_memory.bytes
    assert result.memory_reduction == float(1 - Fraction(variant, original))
""",
        "--modelopt-report=report",
        "-v",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "Wrapped in test_wrapped",
            "*; process memory: of fresh processes, by memray, for ONNX Runtime",
            "  verdict *recipe *process memory *",
            "*original * MiB *",
            "*int8-dynamic * of * MiB *",
            "NOTE Wrapped in test_wrapped: process memory by memray, 3 fresh processes each: original on ONNX Runtime "
            "* MiB within * B, int8-dynamic on ONNX Runtime *",
        ]
    )
    (case,) = read(Path("report/record.json")).cases
    assert case.reference is not None
    assert case.reference.process_memory is not None
    assert case.reference.process_memory.meter == "memray"
    assert len(case.reference.process_memory.peaks_bytes) == 3


def test_a_foreign_model_that_is_too_big_is_red_where_torchs_allocator_would_see_nothing(project: Project) -> None:
    result = run(
        project,
        WRAPPED
        + """
@pytest.mark.model_budget(max_memory="1 kB")
def test_wrapped(modelopt):
    modelopt(wrapped(), "int8-dynamic", example_inputs=torch.zeros(1, 64))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*: max_memory 1 kB is broken: * MiB measured by memray in 3 fresh processes, * more than the limit.*"]
    )


def test_a_foreign_model_that_cannot_be_saved_is_never_green(project: Project) -> None:
    """Made by a factory in the worker, so that only the saving fails: its session is an attribute like any other."""
    result = run(
        project,
        WRAPPED
        + """
def naive():
    model = wrapped()
    model.sessions = [model.session]
    return model

@pytest.mark.model_budget(max_memory="1 GB")
def test_naive(modelopt):
    modelopt(naive, "prune-unstructured(ratio=0.5)", example_inputs=torch.zeros(1, 64))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*max_memory 1 GB was not measured, which counts as broken (original and *: the model cannot be saved: *",
        ]
    )


def test_a_limit_on_process_memory_holds_for_torch_models_beside_the_tensor_meter(project: Project) -> None:
    result = project(one_case("{max_process_memory: 100 MB, max_memory: 1 MB}")).runpytest("--modelopt", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*NOTE m: process memory by memray, 3 fresh processes each: original * within * B, *"])
    result.stdout.no_fnmatch_line("*MiB[*]*")
