"""What the gate costs for one candidate, beside a plain script that does the same work. Goal: less than 2.5 times.

The plain script reads the data, scores both models in batches of 64, takes the peak of a fresh process for each that
loads it and calls it once, and times both in turns for as long as the gate did. The gate beside that reads the data
twice, has a worker for each model, and repeats what it must be sure of. Each starts from nothing, in turns.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY
from pytest_modelopt.results import json as record_json

CANDIDATES = {
    "student": "factory: example_project.vision:load_student",
    "onnx": "file: digits_student.onnx",
}
"""Of digits-vit, by what stands in budgets.yaml."""
BUDGETS = """version: 1
models:
  digits-vit:
    factory: example_project.vision:load_model
    data: example_project.vision:test_data
    candidates:
      {name}: {{{origin}, max_accuracy_drop: 1 pp, max_memory: 9 MiB, max_size: 1 MiB}}
"""
BATCH = 64
IN_A_TURN = 20
"""Calls of one model before the other one's turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="of each side")
    parser.add_argument("--script", nargs=2, metavar=("NAME", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--peak", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_bytes(options.peak))
    elif options.script:
        run_script(options.script[0], float(options.script[1]))
    else:
        common.print_origins([common.origin()])
        rows = [row(name, options.turns) for name in CANDIDATES]
        print("\nWall seconds of a candidate of digits-vit: median, and the smallest and the largest.")
        print(tabulate(rows, headers="keys", disable_numparse=True))


def row(name: str, turns: int) -> dict[str, str]:
    gate, script, timed = list[float](), list[float](), list[float]()
    run_gate(name)  # compiles our modules, and fills the disk's cache
    for _ in range(turns):
        wall_s, timing_s = run_gate(name)
        gate.append(wall_s)
        timed.append(timing_s)
        script.append(wall_of([sys.executable, "-m", "benchmarks.candidate_cost", "--script", name, f"{timing_s}"]))
    ratios = [ours / plain for ours, plain in zip(gate, script, strict=True)]
    columns = {"gate": gate, "plain script": script, "timing, in both": timed}
    shown = {title: _spread(values, " s") for title, values in columns.items()}
    return {"candidate": name, **shown, "gate / script": _spread(ratios, "x")}


def _spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def wall_of(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - start


def run_gate(name: str) -> tuple[float, float]:
    """(wall seconds, seconds of timing) of the gate with this candidate alone."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "budgets.yaml").write_text(BUDGETS.format(name=name, origin=CANDIDATES[name]), encoding="utf-8")
        shutil.copy(REPOSITORY / "example_project" / "weights" / "digits_student.onnx", root)
        arguments = [
            "--modelopt",
            "--rootdir",
            folder,
            "--modelopt-report",
            f"{folder}/report",
            "-p",
            "no:cacheprovider",
        ]
        wall_s = wall_of([sys.executable, "-m", "pytest", *arguments, f"{folder}/budgets.yaml"])
        (case,) = record_json.read(root / "report" / "record.json").cases
    assert case.timing is not None, case.error
    return wall_s, case.timing.seconds + case.timing.prepare_s


# --- the plain script ------------------------------------------------------------------------------------------------


def loaded(name: str) -> Callable[[Any], Any]:
    from example_project import vision

    if name != "onnx":
        return vision.load_student() if name == "student" else vision.load_model()
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(vision.ONNX_PATH, options)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def peak_bytes(name: str) -> int:
    """How much the peak of this process grows while the model is loaded and called once."""
    import resource

    import torch

    from example_project import vision

    image = vision.test_data()[0][:1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        loaded(name)(image)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def run_script(name: str, seconds: float) -> None:
    import torch

    from example_project import vision

    torch.set_num_threads(1)
    images, digits = vision.test_data()
    models = {each: loaded(each) for each in ("original", name)}
    with torch.inference_mode():
        for each, model in models.items():
            right = 0
            for first in range(0, len(digits), BATCH):
                right += int((model(images[first : first + BATCH]).argmax(1) == digits[first : first + BATCH]).sum())
            command = [sys.executable, "-m", "benchmarks.candidate_cost", "--peak", each]
            peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(f"{each}: {right} of {len(digits)} right, {peak} bytes at the peak")
        took: dict[str, list[float]] = {each: [] for each in models}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for each, model in models.items():
                start = time.perf_counter()
                for _ in range(IN_A_TURN):
                    model(images[:1])
                took[each].append((time.perf_counter() - start) / IN_A_TURN)
    print({each: statistics.median(values) for each, values in took.items()})


if __name__ == "__main__":
    main()
