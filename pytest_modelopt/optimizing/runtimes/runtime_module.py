"""A model that another runtime executes, behind the same call: inputs go in and outputs come out as in the original."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils import _pytree

from pytest_modelopt.optimizing.calling import Inputs


@dataclass(frozen=True)
class Fed:
    """An input of a program: which of the call's tensors it gets, and whether as int32 where torch counts in int64."""

    name: str
    index: int
    narrows: bool = False

    def of(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The tensor that it gets.

        Raises:
            ValueError: for whole numbers that int32 does not hold.
        """
        tensor = tensors[self.index]
        if not self.narrows or tensor.dtype is not torch.int64:
            return tensor
        limits = torch.iinfo(torch.int32)
        if tensor.numel() and (int(tensor.min()) < limits.min or int(tensor.max()) > limits.max):
            raise ValueError(
                f"the input {self.name} holds whole numbers beyond the 32 bits of the program's input: give smaller "
                "numbers, or export it for int64"
            )
        return tensor.to(torch.int32)


@dataclass(frozen=True)
class Signature:
    """How the model is called and what it returns, taken from one call of the original."""

    positional: int
    """Number of positional arguments, all tensors."""
    keywords: tuple[str, ...]
    """Names of the keyword arguments, all tensors, in the order of the runtime's inputs."""
    output: _pytree.TreeSpec
    constants: tuple[Any, ...]
    """The leaves of the output that are no tensors, in place; a tensor's place holds `TENSOR`."""
    dtypes: tuple[torch.dtype, ...]
    """Of the output's tensors."""
    ports: tuple[Fed, ...] | None = field(default=None, compare=False)
    """What each input of the runtime gets; None where all tensors of the call are given as they are."""
    order: tuple[int, ...] | None = field(default=None, compare=False)
    """Which output of the runtime each tensor of the answer is; None where they come in this order."""

    @classmethod
    def of(cls, inputs: Inputs, output: Any) -> Signature:
        """The signature of the call `calling.call(model, inputs)` that returned `output`."""
        leaves, spec = _pytree.tree_flatten(output)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        constants = tuple(TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
        dtypes = tuple(tensor.dtype for tensor in tensors)
        if isinstance(inputs, Mapping):
            return cls(0, tuple(inputs), spec, constants, dtypes)
        return cls(len(inputs) if type(inputs) is tuple else 1, (), spec, constants, dtypes)

    def flat_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors of a call in the order of the runtime's inputs.

        Raises:
            TypeError: for a call with other arguments than those that the model was converted for.
        """
        if len(args) != self.positional or set(kwargs) != set(self.keywords):
            takes = ", ".join([*(self.positional * ["a tensor"]), *(f"{name}=" for name in self.keywords)])
            raise TypeError(f"the converted model takes exactly the arguments that it was converted with: ({takes})")
        tensors = [*args, *(kwargs[name] for name in self.keywords)]
        return tensors if self.ports is None else [port.of(tensors) for port in self.ports]

    def ordered(self, outputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The runtime's outputs in the order of the answer."""
        return outputs if self.order is None else [outputs[index] for index in self.order]

    def output_of(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The structure that the original returns, with these outputs of the runtime in it."""
        remaining = iter(
            tensor.to(dtype) for tensor, dtype in zip(self.ordered(tensors), self.dtypes, strict=True)
        )  # runtimes answer int64 as int32 and the like
        leaves = [next(remaining) if constant == TENSOR else constant for constant in self.constants]
        return _pytree.tree_unflatten(leaves, self.output)

    def __reduce__(self) -> tuple[Any, ...]:
        """Saved with an empty answer in place of `output`: torch warns where the parts of a TreeSpec are loaded."""
        leaves = [torch.empty(0) if constant == TENSOR else constant for constant in self.constants]
        answer = _pytree.tree_unflatten(leaves, self.output)
        return _loaded, (self.positional, self.keywords, answer, self.constants, self.dtypes, self.ports, self.order)


def _loaded(
    positional: int,
    keywords: tuple[str, ...],
    answer: Any,
    constants: tuple[Any, ...],
    dtypes: tuple[torch.dtype, ...],
    ports: tuple[Fed, ...] | None,
    order: tuple[int, ...] | None,
) -> Signature:
    return Signature(positional, keywords, _pytree.tree_structure(answer), constants, dtypes, ports, order)


TENSOR = "<tensor>"


class EngineModule(nn.Module):
    """Runs a model in the engine of another runtime, which is not saved with it.

    The engine is started at the first call, and again when torch's number of threads changes: so it works with as many
    threads as torch would, and a copy that was loaded elsewhere starts its own.
    """

    runtime: ClassVar[str]
    """The name of the runtime, as `measure` knows it."""

    def __init__(self, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        self._engine: Any = None
        self._threads = 0

    @abstractmethod
    def start(self, threads: int) -> Any:
        """An engine that works with `threads` threads."""

    @abstractmethod
    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs for `inputs`, in tensors of their own."""

    @property
    def engine(self) -> Any:
        """The started engine."""
        if self._engine is None or self._threads != torch.get_num_threads():
            self._threads = torch.get_num_threads()
            self._engine = self.start(self._threads)
        return self._engine

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = self.signature.flat_inputs(args, kwargs)
        return self.signature.output_of(self.run(self.engine, inputs))


class HoldsPrograms:
    """What a recipe for another runtime leaves behind: one program, or several that work together."""

    @abstractmethod
    def float_tensors(self) -> Iterator[torch.Tensor]:
        """Every tensor that the programs hold in float32, in whatever shape and order."""

    @abstractmethod
    def parts(self) -> dict[str, bytes]:
        """The content of the files, in the runtime's own format, by suffix; the one that is loaded comes first."""


class RuntimeModule(EngineModule, HoldsPrograms):
    """Runs `program`, a model in the format of another runtime. Saved, it is that program and the signature."""

    def __init__(self, program: bytes, signature: Signature) -> None:
        super().__init__(signature)
        self.program = program

    def contents(self) -> tuple[int, dict[str, int]]:
        """Bytes of the numbers in `program`, and how many operators it has by the layer that they came from, '' for
        those of which nobody knows. Of a format that nobody reads here all are numbers."""
        return len(self.program), {}

    def __getstate__(self) -> dict[str, Any]:
        """The program as a tensor: torch.save writes bytes as text, which takes half as much again."""
        program = torch.frombuffer(bytearray(self.program), dtype=torch.uint8)
        return {**self.__dict__, "_engine": None, "program": program}

    def __setstate__(self, state: dict[str, Any]) -> None:
        program = state["program"].numpy().tobytes()
        super().__setstate__({**state, "program": program})  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        return f"{self.runtime}, {len(self.program):,} bytes"
