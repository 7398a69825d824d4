"""What a measured call costs beside a plain one: our timed call over a loop of `model(x)`, in turns, in one process.

Both are read by the processor time of the thread, so that what others take of the machine does not count, around as
many calls. `untouched` inputs are left alone, and all timed calls share them; a model that `writes` into its inputs
gets a copy for each call, made before the clock starts, and so does the plain loop. The ratio of each pair of turns,
its median, and the interval of the median by the order of the pairs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.common import origin, print_origins
from example_project.vision import load_model, test_data
from pytest_modelopt.measuring.worker.calls.given_inputs import Call, TimedCall
from pytest_modelopt.optimizing.calling import fresh

TURNS = 300
_TURN_NS = 3_000_000
"""What a turn takes about."""


class _Writing(nn.Module):
    """Scales its inputs in place, as detectors do, and then does what the other does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x.mul_(0.5))
        return answer


def _small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "two Linear layers": (_small, lambda: torch.ones(1, 64)),
    "digits-vit of example_project": (load_model, lambda: test_data()[0][:1]),
}


def plainly(model: nn.Module, inputs: list[Tensor]) -> int:
    """Nanoseconds of the processor that a plain loop over these inputs takes."""
    start = time.thread_time_ns()
    for x in inputs:
        model(x)
    return max(1, time.thread_time_ns() - start)


def timed(call: Call, calls: int) -> int:
    """As the clock of the gate goes around its calls (`latency.host_clock`)."""
    start = time.thread_time_ns()
    for _ in range(calls):
        call()
    return max(1, time.thread_time_ns() - start)


def ratios(model: nn.Module, inputs: Tensor, turns: int, *, writes: bool) -> tuple[list[float], float]:
    """Of our timed calls over plain ones, turn by turn; and nanoseconds of the processor that a plain one takes."""
    ours, coin, found, plain_ns = TimedCall(model, inputs, copies=writes), random.Random(0), [], []
    calls = max(1, _TURN_NS // min(plainly(model, [cast("Tensor", fresh(inputs))]) for _ in range(20)))
    for _ in range(turns):
        spent = {}
        for ours_now in coin.sample((True, False), 2):
            if ours_now:
                spent[True] = timed(ours.prepared(calls), calls)
            else:
                # By `fresh`, too: a tensor that is made in inference mode is of another kind, and some 2 us faster.
                copies: list[Any] = [fresh(inputs) for _ in range(calls)] if writes else calls * [inputs]
                spent[False] = plainly(model, copies)
        found.append(spent[True] / spent[False])
        plain_ns.append(spent[False] / calls)
    assert writes or ours.is_clean()
    return found, statistics.median(plain_ns)


def _row(name: str, way: str, found: list[float], plain_ns: float) -> list[str]:
    ordered = sorted(found)
    away = round(0.98 * len(ordered) ** 0.5)  # 95% of a binomial with one half
    low, high = ordered[max(0, len(ordered) // 2 - away)], ordered[min(len(ordered) - 1, len(ordered) // 2 + away)]
    return [name, way, f"{plain_ns / 1000:.1f} us", f"{statistics.median(found):.4f}", f"{low:.4f} to {high:.4f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS, help="pairs of turns for each line (default: %(default)s)")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    rows = []
    for name, (make, made) in MODELS.items():
        inputs = made()
        with torch.inference_mode():
            rows.append(_row(name, "untouched", *ratios(make(), inputs, turns, writes=False)))
            rows.append(_row(name, "writes", *ratios(_Writing(make()), inputs, turns, writes=True)))
    print_origins([origin()])
    print(f"batch 1, 1 thread, {turns} pairs of turns of 3 ms")
    headers = ["model", "inputs", "plain call", "timed / plain", "95% of the median"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "left", *("right",) * 3)))


if __name__ == "__main__":
    main()
