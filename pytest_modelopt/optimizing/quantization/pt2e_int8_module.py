"""A program of int8 layers that torch's compiler turns into int8 kernels when it is first called."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 -- registers the operators that the program consists of
from torch import nn
from torch.export import ExportedProgram

from pytest_modelopt.optimizing.quantization import torch_ao


class Pt2eInt8(nn.Module):
    """Runs `graph`, the module of `program`, compiled.

    Only with the compiler's setting `freezing` are the pairs of dequantize and layer replaced by int8 kernels, and
    torch reads it from the process when it traces, not from the options of the compilation: it is set during each call,
    since any call can be the first of its shapes, and then put back. Each number of examples is compiled for itself:
    with sizes left open, torch 2.13 fails on chains of convolutions and on Linear. After eight sets of sizes torch
    stops compiling and runs the program step by step. Saved, the module is its program.
    """

    backend: ClassVar[str] = "inductor"

    def __init__(self, program: ExportedProgram, unused: Sequence[nn.Parameter] = ()) -> None:
        super().__init__()
        self.program = program
        self.unused = nn.ParameterList(unused)
        """Weights that the original holds and never uses, which an exported program loses."""
        self.graph = program.module()
        # torch.export lets each call check that its sizes are those that the program is made for, which takes longer
        # than a small model: it is enough for each new set of sizes
        self._checks = list(self.graph._forward_pre_hooks.values())
        self.graph._forward_pre_hooks.clear()
        self.graph._forward_hooks.clear()  # the counterpart of another of them
        self._compiled: Any = None
        self._seen: set[tuple[Any, ...]] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        sizes = tuple(value.shape for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        with torch.no_grad(), _freezing():
            if sizes in self._seen:
                return self._compiled(*args, **kwargs)
            for check in self._checks:
                check(self.graph, args, kwargs)
            if self._compiled is None:
                self._compiled = torch.compile(self.graph, backend=self.backend, dynamic=False)
            with torch_ao.quiet():  # the compiler is at work
                answer = self._compiled(*args, **kwargs)
        self._seen.add(sizes)
        return answer

    def train(self, mode: bool = True) -> Pt2eInt8:
        """An exported program has one mode, that of evaluation, and raises when it is asked for another."""
        self.training = mode
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer)
        return _loaded, (buffer.getvalue(), list(self.unused))


def _loaded(program: bytes, unused: Sequence[nn.Parameter]) -> Pt2eInt8:
    return Pt2eInt8(torch.export.load(io.BytesIO(program)), unused).eval()


@contextmanager
def _freezing() -> Iterator[None]:
    import torch._inductor.config as inductor

    before = inductor.freezing
    inductor.freezing = True
    try:
        yield
    finally:
        inductor.freezing = before
