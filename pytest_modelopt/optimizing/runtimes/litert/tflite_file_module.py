"""A `.tflite` file in LiteRT, whose sizes are fixed: a batch of others is run in parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from pytest_modelopt.optimizing.runtimes.fixed_sizes_module import Place
from pytest_modelopt.optimizing.runtimes.litert.litert_module import Engine, LiteRT, run
from pytest_modelopt.optimizing.runtimes.litert.tflite import named_constants
from pytest_modelopt.optimizing.runtimes.program_file_module import Port, ProgramFile


class File(ProgramFile):
    runtime: ClassVar[str] = "LiteRT"

    @classmethod
    def described(cls, file: str) -> tuple[tuple[str, ...], str]:
        from ai_edge_litert import schema_py_generated as schema

        version = "?"
        with contextlib.suppress(Exception):  # of another format, which LiteRT says better
            version = str(schema.Model.GetRootAs(Path(file).read_bytes(), 0).Version())
        return (file,), f"{cls.runtime}, schema {version}"

    def start(self, threads: int) -> Engine:
        return _engine(threads, model_path=self.file)

    def ports(self, engine: Engine) -> list[Port]:
        names = [str(each["name"]) for each in engine.interpreter.get_input_details()]
        return [
            Port(name, place.dtype, (None, *place.shape[1:]) if place.shape else ())
            for name, place in zip(names, engine.inputs, strict=True)
        ]

    def output_names(self, engine: Engine) -> list[str]:
        return [str(each["name"]) for each in engine.interpreter.get_output_details()]

    def run(self, engine: Engine, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return run(engine, inputs)

    def weights(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for name, numbers in named_constants(Path(self.file).read_bytes()):
            yield name, "constant", numbers


class Quantized(LiteRT):
    """What a recipe has made of a file, whose inputs have the file's own names and order."""

    def start(self, threads: int) -> Engine:
        return _engine(threads, model_content=self.program)


def _engine(threads: int, **model: Any) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(num_threads=threads, **model)
    interpreter.allocate_tensors()
    details = (interpreter.get_input_details(), interpreter.get_output_details())
    return Engine(interpreter, *(tuple(map(_place, each)) for each in details))


def _place(details: dict[str, Any]) -> Place:
    import numpy

    dtype = torch.from_numpy(numpy.empty(0, details["dtype"])).dtype
    return Place(int(details["index"]), tuple(int(size) for size in details["shape"]), dtype)
