"""Does the memory of scoring grow with the number of examples? Peaks of real workers on N and on 10 N images.

The images are made on the fly by a Dataset, so that the project's own data takes no memory. One worker reads them into
the file from which variants take them, another one loads the model and scores it, as in a run of the gate. The figures
are the kernel's peak of resident memory (VmHWM) of each worker once it stands, and once it is done.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.data import Dataset

from benchmarks.common import REPOSITORY, origin, print_origins
from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.variant import Variant, environment_now
from pytest_modelopt.results.metric import MetricSpec

CLASSES = 10
SHAPE = (3, 32, 32)
METRICS = {
    "accuracy": MetricSpec(),
    "MulticlassF1Score": MetricSpec(
        "torchmetrics.classification.MulticlassF1Score", arguments=(("num_classes", CLASSES), ("average", "macro"))
    ),
}
STEP_LIMIT_S = 600.0


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Noise, a new image for each index."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(index))
        return image, index % CLASSES


def images() -> Images:
    """As many as the environment variable says."""
    import os

    return Images(int(os.environ["MODELOPT_IMAGES"]))


def model() -> nn.Module:
    """A small network, so that the answers and not the activations would show."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, CLASSES)
    ).eval()


def variant(metric: MetricSpec, count: int) -> Variant:
    here = "benchmarks.scoring_memory"
    return Variant(
        model=f"{here}:model",
        recipe=None,
        data=f"{here}:images",
        calibration=None,
        example_inputs=None,
        metric=metric,
        import_paths=(str(REPOSITORY),),
        working_directory=str(REPOSITORY),
        environment=tuple(sorted({**dict(environment_now()), "MODELOPT_IMAGES": str(count)}.items())),
    )


def peak_bytes(worker: Worker) -> int:
    """The highest that the worker's resident memory ever was."""
    for line in Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    sys.exit("this benchmark needs VmHWM in /proc/PID/status, which Linux has")


def measure(metric: MetricSpec, count: int, folder: Path) -> dict[str, int]:
    """Peak bytes of the worker that reads, and of the one that scores, before and after."""
    found: dict[str, int] = {}
    of = variant(metric, count)
    reader = Worker(of, folder, "reader")
    try:
        reader.request("environment", limit_s=STEP_LIMIT_S)
        found["before reading"] = peak_bytes(reader)
        examples = reader.request("read", limit_s=STEP_LIMIT_S, path=str(folder / f"examples-{count}"))
        found["after reading"] = peak_bytes(reader)
    finally:
        reader.close()
    scorer = Worker(of, folder, "scorer")
    try:
        scorer.request("load", limit_s=STEP_LIMIT_S, examples=examples)
        found["before scoring"] = peak_bytes(scorer)
        answers = scorer.request("score", limit_s=STEP_LIMIT_S)
        found["after scoring"] = peak_bytes(scorer)
    finally:
        scorer.close()
    assert answers.examples == count
    return found


def rows(name: str, metric: MetricSpec, few: int, folder: Path) -> list[list[Any]]:
    found = [measure(metric, count, folder) for count in (few, 10 * few)]
    table: list[list[Any]] = []
    for step in ("reading", "scoring"):
        peaks = [one[f"after {step}"] for one in found]
        grown = [one[f"after {step}"] - one[f"before {step}"] for one in found]
        per_image = (grown[1] - grown[0]) / (9 * few)
        table.append([name, step, *(f"{peak / 2**20:.1f}" for peak in peaks), f"{per_image:+.1f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--metrics", nargs="+", choices=sorted(METRICS), default=list(METRICS))
    options = parser.parse_args()
    few = options.images
    print_origins([origin()])
    image_bytes = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2]
    print(f"images of {image_bytes:,} bytes, batches of 64; peaks in MiB of the worker's resident memory")
    start = time.monotonic()
    table: list[list[Any]] = []
    for name in options.metrics:
        with tempfile.TemporaryDirectory() as folder:
            try:
                table += rows(name, METRICS[name], few, Path(folder))
            except WorkerFailed as failed:
                table.append([name, f"failed: {failed.message[:60]}", "", "", ""])
    headers = ["metric", "step", f"{few:,} images", f"{10 * few:,} images", "bytes per further image"]
    print(tabulate(table, headers=headers, stralign="right", colalign=("left", "left", "right", "right", "right")))
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
