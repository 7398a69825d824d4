"""Models of a user who wraps another runtime in an nn.Module, with real runtimes; imported by tests and by workers."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy
import torch
from torch import nn

from pytest_modelopt.optimizing.recipe import Applied, Context, Recipe

FEATURES = 1000
OUTPUTS = 500
WEIGHT_BYTES = 4 * FEATURES * OUTPUTS
"""One float32 matrix, counted by hand: what each of these models must at least take."""


def weight() -> numpy.ndarray[Any, numpy.dtype[numpy.float32]]:
    return numpy.random.default_rng(0).standard_normal((FEATURES, OUTPUTS), dtype=numpy.float32)


def inputs() -> torch.Tensor:
    return torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))


def expected() -> torch.Tensor:
    return inputs() @ torch.from_numpy(weight())


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return inputs(), expected().argmax(1)


class Wrapped(nn.Module, ABC):
    """Keeps the model's file and makes the session from it, also after loading: a session itself cannot be saved."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self.file = file
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Make the session from the file."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.start()


class OnnxRuntime(Wrapped):
    threads = 1

    def start(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (y,) = self.session.run(None, {"x": x.numpy()})
        return torch.from_numpy(y)


class OnnxRuntimeOnTwoThreads(OnnxRuntime):
    """What torch is told about threads does not concern it."""

    threads = 2


class OpenVino(Wrapped):
    def start(self) -> None:
        import openvino

        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.session = core.compile_model(core.read_model(self.file, b""), "CPU", settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session(x.numpy())[0])


class LiteRT(Wrapped):
    def start(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.session = Interpreter(model_content=self.file, num_threads=1)
        self.session.allocate_tensors()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.session.set_tensor(0, x.numpy())
        self.session.invoke()
        return torch.from_numpy(self.session.get_tensor(2))


class Unsavable(nn.Module):
    """What many write first: the session is an attribute, and nothing says how to save it."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Any = onnx_runtime().session

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])


class WithHead(nn.Module):
    """A body in ONNX Runtime and a head in torch, which recipes can change."""

    def __init__(self) -> None:
        super().__init__()
        self.body = onnx_runtime()
        self.head = nn.Linear(OUTPUTS, 400)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x))


class ToOnnxRuntime(Recipe):
    """A recipe as a project may have its own: the model's one matrix, left to ONNX Runtime."""

    recipe_name: ClassVar[str] = "to-onnx-runtime"
    summary: ClassVar[str] = "runs the matrix in ONNX Runtime"
    changes: ClassVar[tuple[str, ...]] = ("Linear",)

    def apply(self, model: nn.Module, context: Context) -> Applied:
        return Applied(onnx_runtime())


def onnx_file() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one_matrix",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(weight(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def tflite_file() -> bytes:
    """One fully connected layer, written with LiteRT's own schema: no TensorFlow is needed."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        return made

    weights = schema.BufferT()
    weights.data = numpy.frombuffer(weight().T.tobytes(), dtype=numpy.uint8)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [4, FEATURES], 0),
        tensor("w", [OUTPUTS, FEATURES], 1),
        tensor("y", [4, OUTPUTS], 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), weights]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@functools.cache
def _onnx_file_once() -> bytes:
    return onnx_file()


def onnx_runtime() -> nn.Module:
    return OnnxRuntime(_onnx_file_once()).eval()


def on_two_threads() -> nn.Module:
    return OnnxRuntimeOnTwoThreads(_onnx_file_once()).eval()


def many_inputs() -> torch.Tensor:
    """Enough work for two threads."""
    return torch.randn(256, FEATURES, generator=torch.Generator().manual_seed(0))


def openvino() -> nn.Module:
    return OpenVino(_onnx_file_once()).eval()


def litert() -> nn.Module:
    return LiteRT(tflite_file()).eval()


def unsavable() -> nn.Module:
    return Unsavable().eval()


class UnsavableWithHead(WithHead):
    def __init__(self) -> None:
        super().__init__()
        self.body = Unsavable()


def unsavable_with_head() -> nn.Module:
    torch.manual_seed(0)
    return UnsavableWithHead().eval()


def in_torch() -> nn.Module:
    layer = nn.Linear(FEATURES, OUTPUTS, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(weight().T.copy()))
    return nn.Sequential(layer).eval()


def with_head() -> nn.Module:
    torch.manual_seed(0)
    return WithHead().eval()


def head_data() -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return inputs(), with_head()(inputs()).argmax(1)
