"""What the gate costs beside a plain script that does the same work: processor time, and the largest worker's peak.

Timing, further launches and warming are left aside: the gate is given a limit on time that is decided at once. The
plain script loads the original and scores it, quantizes it by the recipe's own library call, scores that, writes both
with `torch.save`, and calls each once in a fresh process. Both sides start from nothing, in turns. A second case of the
same model is what a budgets file with two recipes costs beyond one with one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import importlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.timed_pairs import Timing

_OF_BLOCKS = ("block", "warming")
_PR_SET_CHILD_SUBREAPER = 36
"""Of prctl, on Linux."""
_LOOK_S = 0.02
"""Between two looks at the peaks of all processes."""


@dataclass(frozen=True)
class Model:
    """A model and its data, as both sides name them."""

    factory: str
    data: str
    metric: str = "agreement"
    recipes: tuple[str, str] = ("int8-dynamic", "bf16")


_WORDS = "benchmarks.language_models"
MODELS = {
    "digits-vit": Model("example_project.vision:load_model", "example_project.vision:test_data", "accuracy"),
    "spoken-digits": Model("example_project.speech:load_model", "example_project.speech:test_data", "accuracy"),
    "GPT-2, 4 layers": Model(f"{_WORDS}:gpt2_small", f"{_WORDS}:token_ids"),
    "BERT-base": Model(f"{_WORDS}:bert_base", f"{_WORDS}:token_ids"),
    "BERT-base, 256 sequences": Model(f"{_WORDS}:bert_base", f"{_WORDS}:more_token_ids"),
}
BUDGETS = """version: 1
models:
  m:
    factory: {factory}
    data: {data}
    metric: {metric}
    budget: {{max_size: 1 GiB, max_memory: 2 GiB}}
    recipes: {{{recipes}}}
"""


@dataclass(frozen=True)
class Cost:
    """Of one run, its processes included."""

    processor_s: float
    """User and system time, without what timing and warming took."""
    peak_bytes: int
    """Resident, of the largest process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="of each side")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    parser.add_argument("--script", nargs="+", metavar=("NAME", "RECIPE"), help=argparse.SUPPRESS)
    parser.add_argument("--fresh", nargs=2, metavar=("FILE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fresh:
        call_saved(Path(options.fresh[0]), MODELS[options.fresh[1]])
    elif options.script:
        run_script(options.script[0], options.script[1:])
    else:
        common.print_origins([common.origin()])
        rows = [row(name, options.turns) for name in options.models]
        print(
            "\nMedians, and the smallest and the largest. Peaks are of the largest process, without 0.3 GiB of torch."
        )
        print(tabulate(rows, headers="keys", disable_numparse=True))


def row(name: str, turns: int) -> dict[str, str]:
    model = MODELS[name]
    first, both = model.recipes[:1], model.recipes
    gate, gate_both, script, script_both = [], [], [], []
    weights, start = weight_bytes(model)
    run_gate(model, first)  # compiles our modules, and fills the disk's cache
    for _ in range(turns):
        gate.append(run_gate(model, first))
        script.append(run_plain(name, first))
        gate_both.append(run_gate(model, both))
        script_both.append(run_plain(name, both))
    ratio = [ours.processor_s / plain.processor_s for ours, plain in zip(gate, script, strict=True)]
    further = [two.processor_s - one.processor_s for one, two in zip(gate, gate_both, strict=True)]
    plain_further = [two.processor_s - one.processor_s for one, two in zip(script, script_both, strict=True)]
    peaks = [(cost.peak_bytes - start) / weights for cost in gate]
    return {
        "model": name,
        "MiB": f"{weights / 2**20:.1f}",
        "gate, s": _spread([cost.processor_s for cost in gate]),
        "script, s": _spread([cost.processor_s for cost in script]),
        "gate / script": _spread(ratio),
        "second case, s": _spread(further),
        "of the script, s": _spread(plain_further),
        "peak / weights": _spread(peaks) if weights > 32 * 2**20 else "-",
        "of the script": _spread([(cost.peak_bytes - start) / weights for cost in script])
        if weights > 32 * 2**20
        else "-",
    }


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def weight_bytes(model: Model) -> tuple[int, int]:
    """(bytes of its weights, what a process takes that has imported all, and has no model)."""
    code = (
        f"import importlib, resource, torch; m, f = {model.factory!r}.split(':'); "
        "f = getattr(importlib.import_module(m), f); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "m = f(); print(sum(t.nbytes for t in (*m.parameters(), *m.buffers())), before * 1024)"  # tied ones once
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    weights, before = done.stdout.split()
    return int(weights), int(before)


def cost_of(command: Sequence[str]) -> Cost:
    """Of a program and all that it starts. Workers outlive the pytest process, which leaves them to the fork server:
    they become children of this process, and their time is known once they were waited for."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = Peak(process.pid)
    _, errors = process.communicate()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    peak.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}: {errors.decode()}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, peak.bytes)


class Peak:
    """The largest resident peak among a process and all that it starts, read while they run."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._root, self._is_over = pid, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_over = True
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over:
            for process in _family(self._root):
                self.bytes = max(self.bytes, _high_water_mark(process))
            time.sleep(_LOOK_S)


def _family(pid: int) -> Iterator[int]:
    """A process, and all that it and they have started."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in file.read_text(encoding="ascii").split():
                yield from _family(int(child))


def _high_water_mark(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def run_gate(model: Model, recipes: Sequence[str]) -> Cost:
    """The gate with these recipes, without what its record says of timing."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        text = BUDGETS.format(
            factory=model.factory,
            data=model.data,
            metric=model.metric,
            recipes=", ".join(f"{recipe}: {{}}" for recipe in recipes),
        )
        (root / "budgets.yaml").write_text(text, encoding="utf-8")
        options = ["--rootdir", folder, "--modelopt-report", f"{folder}/report", "-p", "no:cacheprovider"]
        options += ["--modelopt-time-limit", "1 ms", f"{folder}/budgets.yaml"]
        found = cost_of([sys.executable, "-m", "pytest", "--modelopt", *options])
        cases = record_json.read(root / "report" / "record.json").cases
    errors = [case.error for case in cases if case.error is not None]
    if errors or len(cases) != len(recipes):
        sys.exit(f"the gate measured {len(cases)} cases: {errors}")
    return Cost(found.processor_s - sum(_timing_s(case.timing) for case in cases if case.timing), found.peak_bytes)


def _timing_s(timing: Timing) -> float:
    """Processor time of its blocks and of the first calls before them, warming included. That of the first calls is
    known by the clock only: on a machine that does nothing else they are the same, since only one process works."""
    sides = ("reference", "variant")
    took: int = sum(
        getattr(pair, f"{side}_{what}_ns") for pair in timing.pairs for side in sides for what in _OF_BLOCKS
    )
    return took / 1e9 * (1 - timing.delayed) + timing.prepare_s


def run_plain(name: str, recipes: Sequence[str]) -> Cost:
    return cost_of([sys.executable, "-m", "benchmarks.cost", "--script", name, *recipes])


# --- the plain script ------------------------------------------------------------------------------------------------


def run_script(name: str, recipes: Sequence[str]) -> None:
    import torch

    torch.set_num_threads(1)
    original = made(MODELS[name].factory).eval()
    batches = in_batches(made(MODELS[name].data))
    with torch.inference_mode():
        expected = [original(batch) for batch in batches]
    in_a_fresh_process(original, name)
    for recipe in recipes:
        model = quantized(copy.deepcopy(original), recipe)
        with torch.inference_mode():
            found = [model(batch) for batch in batches]
        pairs = zip(expected, found, strict=True)
        print(recipe, sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs))
        in_a_fresh_process(model, name)


def in_a_fresh_process(model: object, name: str) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        torch.save(model, file)
        print(file.stat().st_size)
        subprocess.run([sys.executable, "-m", "benchmarks.cost", "--fresh", str(file), name], check=True)


def call_saved(file: Path, model: Model) -> None:
    import torch

    torch.set_num_threads(1)
    batch = in_batches(made(model.data))[0]
    with torch.inference_mode():
        torch.load(file, weights_only=False)(batch[:1])  # our own file
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def made(name: str) -> Any:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)()


def in_batches(data: Any) -> list[Any]:
    if isinstance(data, list):
        return [batch for (batch,) in data]
    inputs = data[0]
    return [inputs[start : start + 64] for start in range(0, len(inputs), 64)]


def quantized(model: Any, recipe: str) -> Any:
    import torch

    if recipe == "int8-dynamic":
        quantize: Any = torch.ao.quantization.quantize_dynamic
        return quantize(model, {torch.nn.Linear, torch.nn.LSTM}, dtype=torch.qint8)

    class Cast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.bfloat16()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = self.model(batch.bfloat16() if batch.is_floating_point() else batch)
            return answers.float()

    return Cast()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
