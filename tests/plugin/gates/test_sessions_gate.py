"""A model with a session of ONNX Runtime of its own that asks for a GPU, on a machine without one, in a user's gate."""

from __future__ import annotations

from collections.abc import Callable

import onnx  # noqa: F401 -- pytester forgets what an inner run imported, and it cannot be imported twice
import onnxruntime
import pytest

from pytest_modelopt.cli.shared.judged_records import read_judged

Project = Callable[..., pytest.Pytester]

BUDGETS = """version: 1
models:
  reader:
    factory: shop:classifier
    data: shop:data
    budget: {max_accuracy_drop: 1 pp}
    candidates:
      on-gpu: {factory: serving:on_gpu}
      on-cpu: {factory: serving:on_cpu}
"""
SERVING = """
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from shop import *

def onnx_file():
    model, names = classifier(), ["x", "a", "b", "c", "d", "y"]
    nodes, weights = [], []
    for at, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            nodes.append(helper.make_node("Gemm", [names[at], f"w{at}", f"b{at}"], [names[at + 1]], transB=1))
            weights += [numpy_helper.from_array(layer.weight.detach().numpy(), f"w{at}")]
            weights += [numpy_helper.from_array(layer.bias.detach().numpy(), f"b{at}")]
        else:
            nodes.append(helper.make_node("Relu", [names[at]], [names[at + 1]]))
    shapes = [helper.make_tensor_value_info(*each) for each in (("x", 1, ["n", 64]), ("y", 1, ["n", 10]))]
    graph = helper.make_graph(nodes, "reader", shapes[:1], shapes[1:], weights)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return whole.SerializeToString()

class Served(nn.Module):
    def __init__(self, providers):
        super().__init__()
        self.file, self.providers = onnx_file(), providers
        self.start()

    def start(self):
        self.session = onnxruntime.InferenceSession(self.file, providers=self.providers)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.start()

    def forward(self, x):
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])

def on_gpu():
    return Served(["CUDAExecutionProvider", "CPUExecutionProvider"]).eval()

def on_cpu():
    return Served(["CPUExecutionProvider"]).eval()
"""


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this one has the provider"
)
def test_a_candidate_that_asked_for_a_gpu_and_runs_on_the_cpu_is_told_where_all_limits_are_kept(
    project: Project,
) -> None:
    pytester = project(BUDGETS)
    pytester.makepyfile(serving=SERVING)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)
    told = " ".join(result.stdout.str().split())
    assert told.count("the variant asked ONNX Runtime for CUDAExecutionProvider and runs on CPUExecutionProvider") == 1
    cases = {case.recipe: case for case in read_judged(pytester.path / "report" / "record.json").cases}
    found = {name: [finding.rule for finding in case.findings] for name, case in cases.items()}
    assert {name: "fell-back-to-cpu" in rules for name, rules in found.items()} == {"on-gpu": True, "on-cpu": False}
