"""Which block, and which figure of it, tells two identical models apart least: the experiment behind TARGET_BLOCK_NS.

Two workers with the same model take turns, as in the gate; each launch lasts some seconds. For blocks of one call and
of some milliseconds, and for each way to use a block (all of them, without the preempted ones, without the time for
which others had the processor), it prints by how much the median ratio of a launch is off.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from benchmarks.common import CONDITIONS, REPOSITORY, machine, origin, print_origins
from pytest_modelopt.measure.process import Worker
from pytest_modelopt.measure.replies import Block
from pytest_modelopt.measure.variant import Variant, environment_now
from pytest_modelopt.metrics import MetricSpec

BLOCKS_MS = (1, 5, 20, 60)
Pair = tuple[Block, Block]


def launch(variant: Variant, folder: Path, block_ns: int, seconds: float, coin: random.Random) -> list[Pair]:
    """Pairs of one launch of two workers."""
    workers = [Worker(variant, folder, name) for name in ("one", "other")]
    try:
        core = coin.choice(sorted(os.sched_getaffinity(0)))
        calls = None
        for worker in workers:
            worker.request("load", limit_s=60)
            worker.request("pin", cores=[core], limit_s=60)
            calls = worker.request("prepare_timing", calls=calls, block_ns=block_ns, limit_s=60)
        pairs: list[Pair] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            order = workers if coin.random() < 0.5 else workers[::-1]
            blocks = {worker: worker.request("block", limit_s=60) for worker in order}
            pairs.append((blocks[workers[0]], blocks[workers[1]]))
        return pairs
    finally:
        for worker in workers:
            worker.close()


def estimates(pairs: list[Pair]) -> dict[str, float]:
    """The median ratio of a launch, by how a block is used."""
    whole = [a.elapsed_ns / b.elapsed_ns for a, b in pairs]
    kept = [a.elapsed_ns / b.elapsed_ns for a, b in pairs if not a.switches and not b.switches]
    own = [(a.elapsed_ns - a.delayed_ns) / (b.elapsed_ns - b.delayed_ns) for a, b in pairs]
    return {
        "all blocks": statistics.median(whole),
        "without preempted blocks": statistics.median(kept) if kept else float("nan"),
        "without the time of others": statistics.median(own),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--launches", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    variant = Variant(
        "example_project.vision:load_model", None, "example_project.vision:test_data", None, None, MetricSpec(),
        (str(REPOSITORY),), str(REPOSITORY), environment_now(),
    )  # fmt: skip
    print_origins([origin()])
    print(f"digits-vit, batch 1, 1 thread; {options.launches} launches of {options.seconds:g} s each, kinds in turns")
    for condition in CONDITIONS:
        found: dict[int, list[list[Pair]]] = {block: [] for block in BLOCKS_MS}
        coin = random.Random(20260101)
        with tempfile.TemporaryDirectory() as folder, machine(condition):
            for _ in range(options.launches):
                for block in coin.sample(BLOCKS_MS, len(BLOCKS_MS)):
                    found[block].append(launch(variant, Path(folder), block * 1_000_000, options.seconds, coin))
        rows = []
        for block, launches in found.items():
            each = [estimates(pairs) for pairs in launches]
            preempted = [bool(side.switches) for pairs in launches for pair in pairs for side in pair]
            for use in each[0]:
                off = [abs(one[use] - 1) for one in each]
                rows.append(
                    [
                        f"{block} ms", use, f"{statistics.mean(len(pairs) for pairs in launches):.0f}",
                        f"{statistics.mean(preempted):.1%}", f"{statistics.mean(off):.2%}", f"{max(off):.2%}",
                    ]
                )  # fmt: skip
        print(f"\n{condition}:")
        print(tabulate(rows, ["block", "used", "pairs", "preempted", "off by, mean", "worst"], disable_numparse=True))


if __name__ == "__main__":
    main()
