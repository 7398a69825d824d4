"""How well memory figures repeat: 20 fresh processes for each way to measure, on the same saved model and input.

The tensor meter and process memory are this project's; the growth of resident memory, `ru_maxrss` and the sum in
torch.profiler's own summary are what a script would read otherwise. Each process loads the model and calls it once on
one example (for the tensor meter and the profiler after a call to warm up, in processes of their own). This project's
meters and the profiler run in workers from the fork server, as in a test run; the resident figures in interpreters of
their own, as a script would read them.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from benchmarks.common import REPOSITORY, origin, print_origins
from example_project.vision import load_model, test_data
from pytest_modelopt.measuring.controller.preloading import PRELOAD
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.measuring.worker.memory import process_memory, tensor_meter
from pytest_modelopt.optimizing.apply import optimize
from pytest_modelopt.optimizing.calling import call
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.optimizing.recipe import Context
from pytest_modelopt.optimizing.runtimes.runtime import runtimes

RUNS = 20
SIZES = (1024, 2048, 1024, 10)


class OnnxRuntimeMLP(nn.Module):
    """A multilayer perceptron in ONNX Runtime, as a project would wrap it: saved as its file."""

    def __init__(self, file: bytes) -> None:
        super().__init__()
        self.__setstate__({**self.__dict__, "file": file})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import onnxruntime

        self.__dict__.update(state)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])


def onnx_file() -> bytes:
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    random = numpy.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for index, shape in enumerate(itertools.pairwise(SIZES)):
        weights.append(numpy_helper.from_array(random.standard_normal(shape, dtype=numpy.float32), f"w{index}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{index}"], [f"h{index}"]))
        nodes.append(helper.make_node("Relu", [f"h{index}"], [f"y{index}"]))
        name = f"y{index}"
    first = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])
    last = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", SIZES[-1]])
    graph = helper.make_graph(nodes, "mlp", [first], [last], weights)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


# --- the ways to measure, each in a fresh process --------------------------------------------------------------------


def by_tensor_meter(model: Path, inputs: Path, runtime: str | None) -> int:
    loaded, example = size.load(model), size.load(inputs)
    with torch.inference_mode():
        call(loaded, example)
        return tensor_meter.weights_bytes(loaded) + tensor_meter.call_peak_bytes(lambda: call(loaded, example))


def fresh_process(model: Path, inputs: Path, runtime: str | None) -> int:
    return process_memory.peak_bytes(model, inputs, runtime)[0]


def resident_growth(model: Path, inputs: Path, runtime: str | None) -> int:
    _import_runtime(runtime)
    before = _resident_bytes()
    loaded, example = size.load(model), size.load(inputs)
    with torch.inference_mode():
        kept = call(loaded, example)
    after = _resident_bytes()
    del kept
    return after - before


def maximum_resident(model: Path, inputs: Path, runtime: str | None) -> int:
    resident_growth(model, inputs, runtime)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def profiler_summary(model: Path, inputs: Path, runtime: str | None) -> int:
    loaded, example = size.load(model), size.load(inputs)
    with torch.inference_mode():
        call(loaded, example)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = call(loaded, example)
    del kept
    return sum(int(event.self_cpu_memory_usage) for event in profiler.key_averages())


def _import_runtime(runtime: str | None) -> None:
    """A script would have imported it at its top."""
    objects = {each.name: each.objects for each in runtimes().values()}
    for package in objects.get(runtime or "", ()):
        importlib.import_module(package)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


WAYS: dict[str, Callable[[Path, Path, str | None], int]] = {
    "tensor meter": by_tensor_meter,
    "process memory": fresh_process,
    "VmRSS after - before": resident_growth,
    "ru_maxrss": maximum_resident,
    "torch.profiler, summary": profiler_summary,
}


AS_A_SCRIPT = ("VmRSS after - before", "ru_maxrss")


def _child(connection: Connection, way: str, model: Path, inputs: Path, runtime: str | None) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)  # the profiler prints a line at each start and stop
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    try:
        connection.send(WAYS[way](model, inputs, runtime))
    except tensor_meter.ForeignRuntime as found:
        connection.send(f"refuses: {found.runtime}")


def _script(way: str, model: Path, inputs: Path, runtime: str | None) -> int:
    """The figure that a new interpreter prints. A shell stands between: ru_maxrss would show our own peak otherwise."""
    module = "benchmarks.memory_spread"
    script = [sys.executable, "-m", module, "--read", way, str(model), str(inputs), runtime or ""]
    done = subprocess.run(
        ["sh", "-c", '"$0" "$@"; exit $?', *script],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return int(done.stdout.split()[-1])


def _fresh(way: str, model: Path, inputs: Path, runtime: str | None) -> int | str:
    if way in AS_A_SCRIPT:
        return _script(way, model, inputs, runtime)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, way, model, inputs, runtime))
    process.start()
    theirs.close()
    try:
        answer: int | str = ours.recv()
    finally:
        process.join()
    return answer


# --- the table -------------------------------------------------------------------------------------------------------


def _models() -> dict[str, tuple[nn.Module, torch.Tensor, str | None]]:
    images = test_data()[0][:1]
    quantized = optimize(load_model(), parse("int8-dynamic").steps, Context(images, None, 0)).model
    return {
        "digits-vit": (load_model(), images, None),
        "digits-vit, int8-dynamic": (quantized, images, None),
        "MLP in ONNX Runtime": (OnnxRuntimeMLP(onnx_file()).eval(), torch.zeros(1, SIZES[0]), "ONNX Runtime"),
    }


def _row(name: str, way: str, read: list[int | str]) -> list[str]:
    figures = [figure for figure in read if isinstance(figure, int)]
    if len(figures) < len(read):
        return [name, way, str(next(figure for figure in read if isinstance(figure, str))), "", ""]
    spread, middle = max(figures) - min(figures), median(figures)
    share = f"{100 * spread / abs(middle):.3g}%" if middle else "-"
    return [name, way, f"{middle:,.0f}", f"{spread:,}", share]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="fresh processes for each figure (default: %(default)s)")
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        way, saved, example_file, foreign = arguments.read
        torch.set_num_threads(1)
        print(WAYS[way](Path(saved), Path(example_file), foreign or None))
        return
    runs = arguments.runs
    rows = []
    with tempfile.TemporaryDirectory(prefix="memory-spread-") as folder:
        for name, (module, example, runtime) in _models().items():
            model, inputs = Path(folder) / "model.pt", Path(folder) / "inputs.pt"
            size.save(module, model)
            size.save(example, inputs)
            rows += [_row(name, way, [_fresh(way, model, inputs, runtime) for _ in range(runs)]) for way in WAYS]
    print_origins([origin()])
    print(f"batch 1, 1 thread, {runs} fresh processes for each line")
    headers = ["model", "way to measure", "median, bytes", "spread, bytes", "spread, share"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "left", *("right",) * 3)))


if __name__ == "__main__":
    main()
