"""What a model of another runtime is when it is saved: its program, byte for byte, and how it is called."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import cloudpickle
import torch

from pytest_modelopt.optimizing.runtimes.runtime_module import RuntimeModule, Signature
from tests.optimizing.recipe_models import saved_and_loaded


class Doubles(RuntimeModule):
    """Its program is a table of all bytes, and its engine adds a call's inputs to themselves."""

    runtime: ClassVar[str] = "none"

    def start(self, threads: int) -> int:
        return len(self.program) // len(self.program) * 2

    def run(self, engine: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [engine * tensor for tensor in inputs]

    def float_tensors(self) -> Iterator[torch.Tensor]:
        return iter(())

    def parts(self) -> dict[str, bytes]:
        return {".table": self.program}


def doubles(program: bytes) -> Doubles:
    inputs = (torch.ones(2), torch.ones(3))
    return Doubles(program, Signature.of(inputs, {"one": inputs[0], "more": (inputs[1], None, 7)}))


def test_a_saved_program_takes_its_bytes_and_no_more() -> None:
    """torch.save pickles by protocol 2, which writes each byte of 128 and above as two."""
    buffer = io.BytesIO()
    torch.save(doubles(b"\xff" * 100_000), buffer, pickle_module=cloudpickle)
    assert 100_000 < len(buffer.getvalue()) < 104_000


def test_a_loaded_module_has_the_same_program_and_answers_in_the_same_structure() -> None:
    module = doubles(bytes(range(256)))
    call = (torch.ones(2), torch.ones(3))
    module(*call)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = saved_and_loaded(module)
    assert loaded.program == bytes(range(256))
    assert loaded.signature.dtypes == module.signature.dtypes
    answer = loaded(*call)
    assert torch.equal(answer["one"], 2 * call[0])
    assert torch.equal(answer["more"][0], 2 * call[1])
    assert answer["more"][1:] == (None, 7)
