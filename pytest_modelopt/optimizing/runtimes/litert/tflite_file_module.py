"""A `.tflite` file in LiteRT, whose sizes are fixed: a batch of others is run in parts."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from pytest_modelopt.optimizing.runtimes.litert.litert_module import Engine, Place, cut, invoke
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile


class File(ProgramFile):
    runtime: ClassVar[str] = "LiteRT"

    def opened(self, threads: int) -> Engine:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=self.file, num_threads=threads)
        interpreter.allocate_tensors()
        details = (interpreter.get_input_details(), interpreter.get_output_details())
        return Engine(interpreter, *(tuple(map(_place, each)) for each in details))

    def ports(self, engine: Engine) -> list[Port]:
        names = [str(each["name"]) for each in engine.interpreter.get_input_details()]
        return [
            Port(name, place.dtype, (None, *place.shape[1:]) if place.shape else ())
            for name, place in zip(names, engine.inputs, strict=True)
        ]

    def run_ports(self, engine: Engine, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        parts = [invoke(engine, part) for part in cut(engine, inputs)]
        if not parts:
            return [torch.empty((0, *place.shape[1:]), dtype=place.dtype) for place in engine.outputs]
        return [torch.cat(outputs)[: len(inputs[0])] for outputs in zip(*parts, strict=True)]


def _place(details: dict[str, Any]) -> Place:
    import numpy

    dtype = torch.from_numpy(numpy.empty(0, details["dtype"])).dtype
    return Place(int(details["index"]), tuple(int(size) for size in details["shape"]), dtype)
