"""Programs that are served alone, and kept on disk, so that a benchmark need not make them anew."""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, RESULTS
from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.metric import MetricSpec

FOLDER = RESULTS / "programs"
_STEP_LIMIT_S = 600.0
_PLAIN_WARMUP, _PLAIN_CALLS = 10, 100


@dataclass(frozen=True)
class Program:
    """A model and what is made of it."""

    model: str
    data: str
    recipe: str | None = None
    calibration: str | None = None

    def with_recipe(self, recipe: str) -> Program:
        return replace(self, recipe=recipe)

    @property
    def variant(self) -> Variant:
        return Variant(
            model=self.model,
            recipe=None if self.recipe is None else parse(self.recipe),
            data=self.data,
            calibration=self.calibration,
            example_inputs=None,
            metric=MetricSpec(),
            import_paths=(str(REPOSITORY),),
            working_directory=str(REPOSITORY),
        )

    def start(self, folder: Path) -> Worker:
        """A worker that stands ready to be timed; `folder` is for its output."""
        worker = Worker(self.variant, folder, f"worker-{time.monotonic_ns()}")
        if self.recipe is None:
            worker.request("load", limit_s=_STEP_LIMIT_S)
        else:
            model, inputs = kept(self)
            worker.request("reload", path=str(model), inputs_file=str(inputs), limit_s=_STEP_LIMIT_S)
        return worker


def kept(program: Program) -> tuple[Path, Path]:
    """Files of the model and of the inputs of a call; made once."""
    name = hashlib.sha256(repr(program).encode()).hexdigest()[:16]
    model, inputs = FOLDER / f"{name}.pt", FOLDER / f"{name}-inputs.pt"
    if not (model.exists() and inputs.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
            worker = Worker(program.variant, Path(folder), "maker")
            try:
                worker.request("load", limit_s=_STEP_LIMIT_S)
                if program.recipe is not None:
                    worker.request("optimize", limit_s=_STEP_LIMIT_S)
                worker.request("save_inputs", path=str(inputs), limit_s=_STEP_LIMIT_S)
                worker.request("save", path=str(model), limit_s=_STEP_LIMIT_S)
            finally:
                worker.close()
    return model, inputs


def plain_ratio(original: Program, variant: Program) -> float:
    """As a plain script has it: one process, 100 calls of the one and then of the other, the ratio of the medians."""
    medians = _in_fresh_process(_timed_one_after_the_other, original, variant)
    return float(medians[0] / medians[1])


def served_alone(program: Program, seconds: float) -> list[int]:
    """Nanoseconds of each call of a process that does nothing else, on one core, after it has warmed up."""
    calls: list[int] = _in_fresh_process(_served, program, seconds)
    return calls


def _timed_one_after_the_other(*programs: Program) -> list[float]:
    medians = []
    for program in programs:
        call, clock = _loaded(program), time.perf_counter_ns
        for _ in range(_PLAIN_WARMUP):
            call()
        times = []
        for _ in range(_PLAIN_CALLS):
            start = clock()
            call()
            times.append(clock() - start)
        medians.append(statistics.median(times))
    return medians


def _served(program: Program, seconds: float) -> list[int]:
    call, clock = _loaded(program), time.perf_counter_ns
    times, end = [], clock() + int(1e9 * seconds)
    for _ in range(_PLAIN_WARMUP):
        call()
    while clock() < end:
        start = clock()
        call()
        times.append(clock() - start)
    return times


def _loaded(program: Program) -> Callable[[], object]:
    import torch

    from pytest_modelopt.measuring.worker.files import size

    model, inputs = (size.load(path) for path in kept(program))
    torch.set_num_threads(1)
    return lambda: model(inputs)


def _in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "pytest_modelopt.optimizing.apply"])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, arguments))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[-1]])
    with torch.inference_mode():
        sender.send(function(*arguments))
