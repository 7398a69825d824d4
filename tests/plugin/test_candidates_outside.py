"""Candidates that hold the very same weights where torch's allocator does not see them: they have saved nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_modelopt.results.json import read

Project = Callable[..., pytest.Pytester]

SHAPES = {"net": ((1024, 64), (1024, 1024), (8, 1024)), "small": ((128, 64), (64, 128), (8, 64))}
WEIGHT_BYTES = {name: sum(4 * outputs * inputs for outputs, inputs in shapes) for name, shapes in SHAPES.items()}
MODELS = """
import ctypes, mmap
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent
SHAPES = {shapes}

def of(name):
    numbers = torch.frombuffer(bytearray((HERE / f"{name}.bin").read_bytes()), dtype=torch.float32)
    layers = [nn.Linear(inputs, outputs, bias=False) for outputs, inputs in SHAPES[name]]
    for layer, part in zip(layers, numbers.split([layer.weight.numel() for layer in layers])):
        layer.weight.data = part.view_as(layer.weight).clone()
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).eval()

def net():
    return of("net")

def small():
    return of("small")

def data():
    inputs = torch.randn(100, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, net()(inputs).argmax(1)

class Elsewhere(nn.Module):
    '''Holds its numbers in no tensor between two calls. Saved, it is its name: it opens its file when it is loaded.'''

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.hold(HERE / f"{name}.bin")

    def __reduce__(self):
        return type(self), (self.name,)

    def forward(self, x):
        start, held = 0, self.held()
        for number, shape in enumerate(SHAPES[self.name]):
            count = shape[0] * shape[1]
            weight = torch.frombuffer(held, dtype=torch.float32, count=count, offset=4 * start).reshape(shape)
            start += count
            x = nn.functional.linear(x.relu() if number else x, weight)
        return x

class Mapped(Elsewhere):
    def hold(self, file):
        with file.open("r+b") as opened:
            self.pages = mmap.mmap(opened.fileno(), 0)

    def held(self):
        return self.pages

class Addressed(Elsewhere):
    '''Knows the address only, as a library in C would.'''

    def hold(self, file):
        numbers = file.read_bytes()
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self.address, self.length = libc.malloc(len(numbers)), len(numbers)
        ctypes.memmove(self.address, numbers, len(numbers))

    def held(self):
        return (ctypes.c_char * self.length).from_address(self.address)

def mapped():
    return Mapped("net").eval()

def addressed():
    return Addressed("net").eval()

def small_addressed():
    return Addressed("small").eval()
"""
CLAIM = "min_size_reduction: 90%, min_memory_reduction: 90%"
BUDGETS = f"""version: 1
models:
  net:
    factory: elsewhere:net
    data: elsewhere:data
    candidates:
      mapped: {{factory: elsewhere:mapped, {CLAIM}}}
      addressed: {{factory: elsewhere:addressed, {CLAIM}}}
      onnx: {{file: net.onnx, {CLAIM}}}
  small:
    factory: elsewhere:small
    data: elsewhere:data
    candidates:
      addressed: {{factory: elsewhere:small_addressed, {CLAIM}}}
"""


def write(folder: Path) -> None:
    """The weights of both models in files of nothing else, and those of `net` beside an ONNX program, too."""
    generator = np.random.default_rng(0)
    for name, shapes in SHAPES.items():
        weights = [generator.standard_normal(shape, dtype=np.float32) / np.sqrt(shape[1]) for shape in shapes]
        (folder / f"{name}.bin").write_bytes(b"".join(weight.astype(np.float32).tobytes() for weight in weights))
        if name != "net":
            continue
        first, second, third = (
            helper.make_node("Gemm", [f"x{index}", f"w{index}"], [f"y{index}"], transB=1) for index in range(3)
        )
        relus = [helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]) for index in range(2)]
        ports = [
            helper.make_tensor_value_info(port, TensorProto.FLOAT, ["n", size])
            for port, size in (("x0", 64), ("y2", 8))
        ]
        held = [numpy_helper.from_array(each.astype(np.float32), f"w{index}") for index, each in enumerate(weights)]
        nodes = [first, relus[0], second, relus[1], third]
        graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], held)
        program = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(program, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)


def test_what_they_hold_is_counted(project: Project) -> None:
    """What the tensor meter cannot reach is counted by the process meter: also where it is less than what the books
    tolerate."""
    pytester = project(BUDGETS)
    pytester.makepyfile(elsewhere=MODELS.replace("{shapes}", repr(SHAPES)))
    write(pytester.path)
    result = pytester.runpytest("--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=4)
    for case in read(pytester.path / "report" / "record.json").cases:
        name = case.name
        assert case.error is None, case.error
        assert "pass" not in [verdict.outcome for verdict in case.verdicts], name
        assert case.variant is not None
        process = case.variant.process_memory
        held = case.variant.memory_bytes if process is None else process.bytes
        assert held is not None, name
        assert held >= WEIGHT_BYTES[case.model], name
        assert (process is None) == (case.recipe == "mapped"), name
        assert case.variant.size_bytes is not None
        assert case.variant.size_bytes >= WEIGHT_BYTES[case.model], name
