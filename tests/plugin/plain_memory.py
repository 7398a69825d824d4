"""Bytes by which a process grows while it loads a model's file by its runtime and calls it once: a script that knows
nothing of this project.

    python plain_memory.py FILE FEATURES

prints them by the kernel's own counter, the high-water mark of resident memory (VmHWM), which is set back once the
libraries are imported and all their pages are resident: what it shows then are the pages of the model.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

POPULATE_READ, TRIM_THRESHOLD, MMAP_THRESHOLD = 22, -1, -3
"""Of madvise and of mallopt."""


def read(file: Path, features: int) -> int:
    """What it prints, by a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, str(file), str(features)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=file.parent).stdout)


def high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def make_libraries_resident(libc: ctypes.CDLL) -> None:
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, mode, *rest = line.split(maxsplit=5)
        if len(rest) == 4 and rest[3].startswith("/") and mode.startswith("r"):
            start, stop = (int(end, 16) for end in place.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), POPULATE_READ)


def main(file: str, features: int) -> int:
    inputs = np.zeros((1, features), np.float32)
    suffix = Path(file).suffix
    if suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1

        def run() -> Any:
            session = onnxruntime.InferenceSession(file, options)
            return session, session.run(None, {session.get_inputs()[0].name: inputs})
    elif suffix == ".xml":
        import openvino

        libraries = Path(openvino.__file__).parent / "libs"  # loaded with the first model, whichever it is
        for name in ("*intel_cpu*", "*ir_frontend*"):
            ctypes.CDLL(str(next(libraries.glob(name))))

        def run() -> Any:
            model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_NUM_THREADS": 1})
            return model, model(inputs)[0]
    elif suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        def run() -> Any:
            runner = Interpreter(file, num_threads=1).get_signature_runner()
            return runner, runner(args_0=inputs)
    else:
        import torch

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        given = torch.from_numpy(inputs)
        torch.nn.Linear(4, 4)(torch.zeros(1, 4))
        if suffix == ".pte":
            from executorch.extension.pybindings import _C as executorch

            def run() -> Any:
                method = executorch._load_for_executorch(file)
                return method, method.forward((given,))
        elif suffix == ".pt":

            def run() -> Any:
                model = torch.jit.load(file)  # type: ignore[no-untyped-call]
                return model, model(given)
        else:
            import torch._inductor.package.package
            import torch.export._trace
            import torch.export.pt2_archive._package

            def run() -> Any:
                is_native = any("aotinductor" in name for name in zipfile.ZipFile(file).namelist())
                model: Any = torch._inductor.aoti_load_package(file) if is_native else torch.export.load(file).module()
                return model, model(given)

    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 128 * 1024)
    libc.mallopt(TRIM_THRESHOLD, 128 * 1024)
    libc.malloc_trim(0)
    make_libraries_resident(libc)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = high_water_mark()
    kept = run()
    grown = high_water_mark() - before
    del kept
    return grown


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
