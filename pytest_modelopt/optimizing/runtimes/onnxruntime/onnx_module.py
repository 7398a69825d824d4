"""A model as an ONNX program that ONNX Runtime executes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from pytest_modelopt.optimizing.runtimes import telemetry
from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule, Signature


class OnnxModule(RuntimeModule):
    """Runs `program`, a serialized ONNX model, in ONNX Runtime on the CPU.

    `names` are the program's inputs in the order of the signature. `folded` are weights of the original that are not in
    the program themselves, but went into floating-point constants of it, as those of batch norm do into a convolution.
    They are for counting what was changed, and are not saved.
    """

    runtime: ClassVar[str] = "ONNX Runtime"

    def __init__(
        self, program: bytes, signature: Signature, names: Sequence[str], folded: Iterable[torch.Tensor] = ()
    ) -> None:
        super().__init__(program, signature)
        self.names = tuple(names)
        self._folded = tuple(folded)

    def start(self, threads: int) -> Any:
        return session(self.program, threads)

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return run_session(engine, dict(zip(self.names, inputs, strict=True)))

    def parts(self) -> dict[str, bytes]:
        return {".onnx": self.program}

    def float_tensors(self) -> Iterator[torch.Tensor]:
        import onnx

        yield from _float_constants(onnx.load_from_string(self.program))
        yield from self._folded

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_folded": ()}


def session(model: bytes | str, threads: int) -> Any:
    """An InferenceSession on the CPU for a serialized model, or for the file of one."""
    with telemetry.off():
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin while they wait for work take the cores from whatever is timed next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(engine: Any, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """All outputs, in tensors of their own. A converter may have dropped an input that the model does not use."""
    wanted = {value.name for value in engine.get_inputs()}
    feed = {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items() if name in wanted}
    return [torch.from_numpy(array) for array in engine.run(None, feed)]


def _float_constants(message: Any) -> Iterator[torch.Tensor]:
    """Every float32 number in a part of an ONNX model: initializers, constants, and those of graphs within nodes."""
    import numpy
    import onnx

    parts: tuple[Any, ...] = ()
    if isinstance(message, onnx.TensorProto) and message.data_type == onnx.TensorProto.FLOAT:
        yield torch.from_numpy(onnx.numpy_helper.to_array(message).copy())
    elif isinstance(message, onnx.AttributeProto):
        parts = (message.t, message.g, *message.tensors, *message.graphs)
    elif isinstance(message, onnx.NodeProto):
        parts = tuple(message.attribute)
        if message.op_type == "Constant":
            numbers = [number for attribute in parts for number in (attribute.f, *attribute.floats)]
            yield torch.from_numpy(numpy.array(numbers, dtype=numpy.float32))
    elif isinstance(message, onnx.FunctionProto):
        parts = tuple(message.node)
    elif isinstance(message, onnx.GraphProto):
        parts = (*message.initializer, *message.node)
    elif isinstance(message, onnx.ModelProto):
        parts = (message.graph, *message.functions)
    for part in parts:
        yield from _float_constants(part)
