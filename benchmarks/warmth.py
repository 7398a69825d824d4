"""The gate's latencies and speedups beside those of processes that are served alone, for models of 0.1 to 400 MiB.

A user's program is served call after call, with all of the caches to itself. The gate lets two programs take turns, so
each block has to warm up before its clock starts. Both figures are of the machine left alone: of a process that is
served alone, the fastest fifth of its stretches of 10 ms, as the gate takes the fastest fifth of its blocks.

    python -m benchmarks.warmth
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks import common, sized
from benchmarks.common import Row
from benchmarks.serving import Program, kept, served_alone
from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener, TimingPlan, time_pairs
from pytest_modelopt.results.figures import format_time
from pytest_modelopt.results.timed_pairs import Timing
from pytest_modelopt.statistics.samples import Samples, latency
from pytest_modelopt.statistics.timing import speedup

RECIPE = "int8-dynamic"
STRETCH_NS = 10_000_000
DATA = {"mlp_100_kib": "short_vectors", "convolutions": "images", "attention": "images"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=6, help="of each program, and comparisons")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each process, and of each comparison")
    options = parser.parse_args()
    common.print_origins([common.origin()])
    print(f"{options.processes} processes of {options.seconds:g} s each, and as many comparisons, in turns\n")
    rows = [_row(name, options.processes, options.seconds) for name in sized.MODELS]
    print(tabulate(rows, headers="keys", disable_numparse=True))


def _row(name: str, processes: int, seconds: float) -> Row:
    original = Program(f"benchmarks.sized:{name}", f"benchmarks.sized:{DATA.get(name, 'vectors')}")
    variant = original.with_recipe(RECIPE)
    alone: list[tuple[float, float]] = []
    gate: list[Timing] = []
    for _ in range(processes):
        alone.append((_latency_s(served_alone(original, seconds)), _latency_s(served_alone(variant, seconds))))
        gate.append(_compared(original, variant, seconds))
    samples = [Samples.of(timing.pairs) for timing in gate]
    by_gate = [statistics.median(latency(each.originals_s) for each in samples)]
    by_gate += [statistics.median(latency(each.variants_s) for each in samples)]
    served = [statistics.median(side) for side in zip(*alone, strict=True)]
    ratios = (
        statistics.median(speedup(each).figure for each in samples),
        statistics.median(one / other for one, other in alone),
    )
    return {
        "model": name,
        "MiB": f"{kept(original)[0].stat().st_size / 2**20:.1f}",
        "original: gate": format_time(by_gate[0]),
        "alone": format_time(served[0]),
        "off by": f"{by_gate[0] / served[0] - 1:+.1%}",
        f"{RECIPE}: gate": format_time(by_gate[1]),
        "alone ": format_time(served[1]),
        "off by ": f"{by_gate[1] / served[1] - 1:+.1%}",
        "speedup: gate": f"{ratios[0]:.3g}x",
        "alone  ": f"{ratios[1]:.3g}x",
        "off by  ": f"{ratios[0] / ratios[1] - 1:+.1%}",
        "spread alone": f"{_spread([one / other for one, other in alone]):.1%}",
        "warming": f"{statistics.median(timing.warming for timing in gate):.0%}",
    }


def _compared(original: Program, variant: Program, seconds: float) -> Timing:
    plan = TimingPlan(seconds, 600.0, seed=1, threads=1)
    with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
        alive: list[Worker] = []

        def launch(number: int) -> tuple[Worker, Worker]:
            del number
            while alive:
                alive.pop().close()
            alive.extend(side.start(Path(folder)) for side in (original, variant))
            return alive[0], alive[1]

        try:
            return time_pairs(launch, plan, lambda samples, call: True, Listener())["whole"]
        finally:
            for worker in alive:
                worker.close()


def _latency_s(calls_ns: Sequence[int]) -> float:
    """As the gate has it: the mean of each stretch, and of these the fastest fifth."""
    figures: list[float] = []
    stretch: list[int] = []
    left_ns = STRETCH_NS
    for call_ns in calls_ns:
        stretch.append(call_ns)
        left_ns -= call_ns
        if left_ns <= 0:
            figures.append(statistics.fmean(stretch) / 1e9)
            stretch, left_ns = [], STRETCH_NS
    return latency(figures)


def _spread(figures: Sequence[float]) -> float:
    return statistics.stdev(figures) / statistics.fmean(figures)


if __name__ == "__main__":
    main()
