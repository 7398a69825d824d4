"""What a LiteRT program holds, read from its flatbuffer: its numbers in floating point, and where masks go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MASKING = 1e4
"""Numbers of this size and above in a program are there to mask: attention adds -10,000, -1e9 or minus infinity."""


def float_constants(program: bytes) -> Iterator[torch.Tensor]:
    """Every buffer that the program's tensors hold in float32, once, in the shape in which it is stored."""
    yield from (numbers for _, numbers in named_constants(program))


def named_constants(program: bytes) -> Iterator[tuple[str, torch.Tensor]]:
    """The same, each with the name of its first tensor."""
    seen: set[int] = set()
    for graph in _graphs(program):
        for index, tensor in enumerate(graph.tensors):
            if tensor.buffer not in seen and (numbers := graph.numbers(tensor)) is not None:
                seen.add(tensor.buffer)
                yield graph.name(index), numbers


def contents(program: bytes) -> tuple[int, dict[str, int]]:
    """Bytes of its constants, and the number of its operators by the layer that they came from."""
    numbers, layers = 0, Counter[str]()
    for graph in _graphs(program):
        layers.update(_layer(graph.outputs(each)) for each in graph.operators)
        numbers = graph.bytes_of_constants()
    return numbers, dict(layers)


def _layer(name: str) -> str:
    """'encoder.rnn (LSTM)' for the tensor that litert_torch names
    'package.Flattened/package.Model_model/package.Encoder_encoder/torch.nn.modules.rnn.LSTM_rnn;12'; '' for others."""
    _, _, *parts = name.partition(";")[0].split("/") if "/" in name else ("", "")
    found = [part.rpartition(".")[2].partition("_") for part in parts]
    if not found or not all(kind and attribute for kind, _, attribute in found):
        return ""
    return f"{'.'.join(attribute for _, _, attribute in found)} ({found[-1][0]})"


def operators_with(program: bytes, is_wanted: Callable[[torch.Tensor], bool]) -> tuple[str, ...]:
    """All operators that work with a constant that is wanted, by their outputs' names."""
    names: list[str] = []
    for graph in _graphs(program):
        numbers = ((index, graph.numbers(tensor)) for index, tensor in enumerate(graph.tensors))
        wanted = {index for index, found in numbers if found is not None and is_wanted(found)}
        names += [graph.outputs(each) for each in graph.operators if not wanted.isdisjoint(each.inputs)]
    return tuple(names)


def operators_after_masks(program: bytes) -> tuple[str, ...]:
    """All operators that work with a mask's huge numbers, softmax at the end included, by their outputs' names.

    Int8 cannot hold a score of 0.1 and a mask of minus infinity in one tensor.
    """
    names: list[str] = []
    for graph in _graphs(program):
        masked = {
            index
            for index, tensor in enumerate(graph.tensors)
            if (numbers := graph.numbers(tensor)) is not None
            and numbers.numel()
            and bool(numbers.abs().max() >= MASKING)
        }
        for operator in graph.operators:
            if masked.isdisjoint(operator.inputs):
                continue
            names.append(graph.outputs(operator))
            if not graph.ends_masks(operator):
                masked.update(operator.outputs)
    return tuple(names)


def _graphs(program: bytes) -> Iterator[_Graph]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(program, 0)
    return (_Graph(program, schema, model, graph) for graph in model.subgraphs)


class _Graph:
    """One subgraph of a program, with the buffers and operator codes that it refers to."""

    def __init__(self, program: bytes, schema: Any, model: Any, graph: Any) -> None:
        self._program, self._schema, self._model = program, schema, model
        self.tensors = graph.tensors
        self.operators = graph.operators or []

    def name(self, tensor: int) -> str:
        return bytes(self.tensors[tensor].name or b"").decode()

    def bytes_of_constants(self) -> int:
        """Of all graphs of the program."""
        held = (buffer.size if buffer.data is None else len(buffer.data) for buffer in self._model.buffers)
        return sum(int(size or 0) for size in held)

    def outputs(self, operator: Any) -> str:
        return ";".join(self.name(output) for output in operator.outputs)

    def numbers(self, tensor: Any) -> torch.Tensor | None:
        """The numbers that the program holds for a float32 tensor; None where it is another one or comes of a call."""
        import torch

        buffer = self._model.buffers[tensor.buffer]
        if tensor.type != self._schema.TensorType.FLOAT32:
            return None
        if buffer.data is not None and len(buffer.data):
            held = bytearray(buffer.data)
        elif buffer.offset > 1:  # above 2 GB the numbers stand after the flatbuffer
            held = bytearray(self._program[buffer.offset : buffer.offset + buffer.size])
        else:
            return None
        shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
        return torch.frombuffer(held, dtype=torch.float32).reshape(shape)

    def ends_masks(self, operator: Any) -> bool:
        """Whether what comes out is small again, however large what went in."""
        operators = self._schema.BuiltinOperator
        code = self._model.operatorCodes[operator.opcodeIndex]
        ending = (operators.SOFTMAX, operators.LOGISTIC, operators.TANH, operators.LESS, operators.GREATER)
        return max(code.builtinCode, code.deprecatedBuiltinCode) in ending
