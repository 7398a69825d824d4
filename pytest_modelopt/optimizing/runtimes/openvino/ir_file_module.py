"""An OpenVINO model, an `.xml` file with its `.bin` beside it, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import torch

from pytest_modelopt.optimizing.runtimes.openvino import openvino_ir
from pytest_modelopt.optimizing.runtimes.openvino.openvino_module import PRECISION, infer, infer_request
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile, ProgramFileError, version_of

_TYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f64": torch.float64,
    "i64": torch.int64,
    "i32": torch.int32,
    "i8": torch.int8,
    "u8": torch.uint8,
    "boolean": torch.bool,
}


class File(ProgramFile):
    """In float32, as the recipes: a file that one of them made gates as the recipe does."""

    runtime: ClassVar[str] = "OpenVINO"
    setting = (
        "floating point is computed in float32, as by the recipes; by itself OpenVINO takes bfloat16 on CPUs that have "
        f"it and gives other answers there, so serve it with INFERENCE_PRECISION_HINT={PRECISION}"
    )

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        """With the weights, which stand beside it under the same name."""
        weights = Path(file).with_suffix(".bin")
        if not weights.exists():
            raise ProgramFileError(
                f"{Path(file).name} has no {weights.name} beside it, which holds its weights: put it there"
            )
        root = ElementTree.parse(file).getroot()
        versions = (each.get("value") for each in root.iter("Runtime_version"))
        maker = next((version_of(each) for each in versions if each), "")
        made_by = f"OpenVINO IR {version_of(root.get('version') or '?')}"
        return (file, str(weights)), made_by + (f", by OpenVINO {maker}" if maker else "")

    def start(self, threads: int) -> Any:
        return infer_request((self.file,), threads, PRECISION)

    def ports(self, engine: Any) -> list[Port]:
        return [
            Port(
                value.any_name if value.names else f"input_{index}",
                _TYPES.get(value.element_type.get_type_name()),
                None
                if value.partial_shape.rank.is_dynamic
                else tuple(None if size.is_dynamic else size.get_length() for size in value.partial_shape),
            )
            for index, value in enumerate(engine.model_inputs)
        ]

    def output_names(self, engine: Any) -> list[str]:
        return [
            value.any_name if value.names else f"output_{index}" for index, value in enumerate(engine.model_outputs)
        ]

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return infer(engine, inputs)

    def weights(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for operation in openvino_ir.read(self.file).get_ordered_ops():
            if operation.get_type_name() == "Constant" and operation.get_element_type().to_string() == "f32":
                users = [port.get_node().get_type_name() for port in operation.output(0).get_target_inputs()]
                numbers = torch.from_numpy(operation.get_data().copy())
                yield operation.get_friendly_name(), users[0] if users else "constant", numbers
