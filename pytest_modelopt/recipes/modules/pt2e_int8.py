"""A program of int8 layers that torch's compiler turns into int8 kernels when it is first called."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 -- registers the operators that the program consists of
from torch import nn
from torch.export import ExportedProgram

from pytest_modelopt.recipes import torch_ao


class Pt2eInt8(nn.Module):
    """Runs `graph`, the module of `program`, compiled.

    Only with the compiler's setting `freezing` are the pairs of dequantize and layer replaced by int8 kernels, and
    torch reads it from the process when it traces, not from the options of the compilation: it is set during each call,
    since any call can be the first of its shapes, and then put back. Saved, the module is its program.
    """

    backend: ClassVar[str] = "inductor"

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program
        self.graph = program.module()
        self._compiled: Any = None
        self._seen: set[tuple[Any, ...]] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is None:
            self._compiled = torch.compile(self.graph, backend=self.backend)
        shapes = tuple(value.shape for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        with torch.no_grad(), _freezing():
            if shapes in self._seen:
                return self._compiled(*args, **kwargs)
            with torch_ao.quiet():  # the compiler is at work
                answer = self._compiled(*args, **kwargs)
        self._seen.add(shapes)
        return answer

    def train(self, mode: bool = True) -> Pt2eInt8:
        """An exported program has one mode, that of evaluation, and raises when it is asked for another."""
        self.training = mode
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer)
        return _loaded, (buffer.getvalue(),)


def _loaded(program: bytes) -> Pt2eInt8:
    return Pt2eInt8(torch.export.load(io.BytesIO(program))).eval()


@contextmanager
def _freezing() -> Iterator[None]:
    import torch._inductor.config as inductor

    before = inductor.freezing
    inductor.freezing = True
    try:
        yield
    finally:
        inductor.freezing = before
