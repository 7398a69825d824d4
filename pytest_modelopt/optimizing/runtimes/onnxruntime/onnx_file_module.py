"""An `.onnx` file, external data included, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, ClassVar

import torch

from pytest_modelopt.optimizing.runtimes.onnxruntime.onnx_module import run_session, session
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile, ProgramFileError, version_of

_TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(bfloat16)": torch.bfloat16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


class File(ProgramFile):
    runtime: ClassVar[str] = "ONNX Runtime"

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        """With the files in which it keeps its weights, which ONNX allows beside it only."""
        import onnx

        model = onnx.load(file, load_external_data=False)
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        producer = version_of(f"{model.producer_name} {model.producer_version}")
        places = (
            entry.value
            for tensor in onnx.external_data_helper._get_all_tensors(model)
            for entry in tensor.external_data
            if entry.key == "location"
        )
        beside = []
        for place in dict.fromkeys(places):
            if PurePath(place).is_absolute() or ".." in PurePath(place).parts:
                raise ProgramFileError(
                    f"{Path(file).name} keeps weights in {version_of(place)}, which ONNX allows in its own folder "
                    "only: save it with its weights beside it"
                )
            beside.append(str(Path(file).parent / place))
        return (file, *beside), f"ONNX opset {opset}" + (f", by {producer}" if producer else "")

    def start(self, threads: int) -> Any:
        return session(self.file, threads)

    def ports(self, engine: Any) -> list[Port]:
        return [Port(value.name, _TYPES.get(value.type), _sizes(value.shape)) for value in engine.get_inputs()]

    def output_names(self, engine: Any) -> list[str]:
        return [str(value.name) for value in engine.get_outputs()]

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        assert self.signature.ports is not None
        names = (port.name for port in self.signature.ports)
        return run_session(engine, dict(zip(names, inputs, strict=True)))

    def weights(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        import onnx

        graph = onnx.load(self.file).graph
        operators = {name: node.op_type for node in reversed(graph.node) for name in node.input}
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                numbers = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
                yield tensor.name, operators.get(tensor.name, "constant"), numbers


def _sizes(shape: list[Any]) -> tuple[int | None, ...]:
    """An open size has a name, or nothing."""
    return tuple(size if isinstance(size, int) else None for size in shape)
