"""A model that Google's LiteRT (once TensorFlow Lite) executes: a flatbuffer, for a fixed number of examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils import _pytree

from pytest_modelopt.optimizing.runtimes.fixed_sizes_module import Place, run_in_parts
from pytest_modelopt.optimizing.runtimes.litert.tflite import contents, float_constants
from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule, Signature

NAME = "serving_default"
"""Of the one signature that litert_torch gives to a program."""


@dataclass(frozen=True)
class Engine:
    """An interpreter with its tensors allocated, and the places of its inputs and outputs in the model's order."""

    interpreter: Any
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]


class LiteRT(RuntimeModule):
    """Runs a batch in parts of as many examples as the program was converted for.

    The last part is filled up with examples of its own; what comes out for these is dropped.
    """

    runtime: ClassVar[str] = "LiteRT"

    def __init__(self, program: bytes, signature: Signature, left_in_float: Sequence[torch.Tensor] = ()) -> None:
        super().__init__(program, signature)
        self._left_in_float = tuple(left_in_float)
        """Weights that are in the program in floating point, but scaled; known where it was made, and not saved."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_left_in_float": ()}

    def start(self, threads: int) -> Engine:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self.program, num_threads=threads)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(NAME)  # dropped here: while it lives, invoke() refuses to run
        return Engine(interpreter, _places(runner.get_input_details()), _places(runner.get_output_details()))

    def run(self, engine: Engine, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return run(engine, inputs)

    def parts(self) -> dict[str, bytes]:
        return {".tflite": self.program}

    def contents(self) -> tuple[int, dict[str, int]]:
        return contents(self.program)

    def float_tensors(self) -> Iterator[torch.Tensor]:
        yield from float_constants(self.program)
        yield from self._left_in_float


def _places(details: dict[str, Any]) -> tuple[Place, ...]:
    """litert_torch numbers the tensors of a call: args_0, args_1 and output_0, output_1."""
    ordered = sorted(details, key=lambda name: int(name.rpartition("_")[2]))
    return tuple(
        Place(
            int(details[name]["index"]),
            tuple(int(size) for size in details[name]["shape"]),
            torch.from_numpy(_empty(details[name]["dtype"])).dtype,
        )
        for name in ordered
    )


def _empty(dtype: Any) -> Any:
    import numpy

    return numpy.empty(0, dtype)


def run(engine: Engine, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs for a batch of any number of examples."""
    return run_in_parts(partial(invoke, engine), inputs, engine.inputs, engine.outputs, "LiteRT")


def invoke(engine: Engine, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    interpreter = engine.interpreter
    for tensor, place in zip(inputs, engine.inputs, strict=True):
        interpreter.set_tensor(place.index, tensor.detach().contiguous().numpy())
    interpreter.invoke()
    return [torch.from_numpy(interpreter.get_tensor(place.index)) for place in engine.outputs]  # get_tensor copies


class Flattened(nn.Module):
    """The model with tensors in order as arguments and a tuple of tensors as its output, as a program has them."""

    def __init__(self, model: nn.Module, keywords: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.keywords = keywords

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(leaf for leaf in self._leaves(tensors) if isinstance(leaf, torch.Tensor))

    def constants(self, *tensors: torch.Tensor) -> list[Any]:
        """What the model returns beside tensors."""
        return [leaf for leaf in self._leaves(tensors) if not isinstance(leaf, torch.Tensor)]

    def _leaves(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        named = dict(zip(self.keywords, tensors, strict=True)) if self.keywords else {}
        return _pytree.tree_leaves(self.model(**named) if named else self.model(*tensors))
