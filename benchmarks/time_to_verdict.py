"""How long our own timing takes until a limit is decided, far from the limit and near it, by the true slowdown."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import Row, Store

SEED = 20260101
ROUNDS = 20


@dataclass(frozen=True)
class Situation:
    """A copy that takes `slowdown` longer, under a limit that allows `max_slowdown`."""

    slowdown: float
    max_slowdown: float

    @property
    def name(self) -> str:
        return f"{self.slowdown:.1%} at {self.max_slowdown:.1%}"

    @property
    def distance(self) -> float:
        """How far the copy's time is from the time that is allowed, as a share of the latter; negative keeps it."""
        return (1 + self.slowdown) / (1 + self.max_slowdown) - 1

    @property
    def right(self) -> str:
        return "fail" if self.distance > 0 else "pass"


CLEAR = (Situation(0.0, 0.25), Situation(0.0, 0.50), Situation(0.32, 0.10), Situation(0.40, 0.10))
NEAR = (Situation(0.045, 0.10), Situation(0.155, 0.10), Situation(0.0, 0.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--condition", choices=common.CONDITIONS, default="idle", help="what runs beside it")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="trials of each situation")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=common.RESULTS / "time_to_verdict.jsonl", metavar="FILE.jsonl")
    parser.add_argument("--tables-only", action="store_true", help="print what --out holds, measure nothing")
    options = parser.parse_args()
    store = Store(options.out)
    if options.tables_only:
        show(store)
    else:
        common.measure_then_show(lambda: measure(store, options), lambda: show(store))


def measure(store: Store, options: argparse.Namespace) -> None:
    """One trial of each situation in each round, in random order, unless the store holds it."""
    from benchmarks import ours

    done = {(row["condition"], row["round"], row["situation"]) for row in store.of_kind("verdict")}
    todo = []
    for number in range(options.rounds):
        shuffled = common.generator(options.seed, options.condition, number).sample(CLEAR + NEAR, len(CLEAR + NEAR))
        todo += [(number, one) for one in shuffled if (options.condition, number, one.name) not in done]
    if not todo:
        return
    store.begin({"benchmark": "time_to_verdict", "seed": options.seed, "time_limit_s": ours.TIME_LIMIT_S})
    with common.machine(options.condition):
        for number, one in todo:
            seed = common.generator(options.seed, options.condition, number, one.name).randrange(2**31)
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                trial = ours.compare(
                    slowdown=one.slowdown, max_slowdown=one.max_slowdown, folder=Path(folder), seed=seed
                )
            row = {
                "kind": "verdict",
                "condition": options.condition,
                "round": number,
                "situation": one.name,
                "load_average": common.load_average(),
                "outcome": trial.outcome(1 / (1 + one.max_slowdown)),
                "pairs": len(trial.timing.pairs),
                "timing_s": trial.timing.seconds,
                "wall_s": time.perf_counter() - start,
                "slowdown": 1 / trial.estimate.figure - 1,
            }
            store.append(row)
            text = f"{one.name}: {row['outcome']} after {row['timing_s']:.1f} s"
            print(f"{options.condition}, round {number + 1} of {options.rounds}: {text}", file=sys.stderr, flush=True)


def show(store: Store) -> None:
    common.print_origins(store.of_kind("run"))
    print("\nSeconds of our timing until the verdict, which is looked for after 1, 2, 4, ... seconds.")
    print("Distance: how far the copy's time is from what the limit allows. Clear: 20% or more.")
    for condition in common.CONDITIONS:
        rows = [row for row in store.of_kind("verdict") if row["condition"] == condition]
        if rows:
            loads = [row["load_average"] for row in rows]
            print(f"\n{condition}, load average {min(loads):.1f} to {max(loads):.1f}")
            print(tabulate(table(rows), headers="keys", disable_numparse=True))


def table(rows: Sequence[Row]) -> list[Row]:
    """One line for each situation that was tried."""
    lines = []
    for group, situations in (("clear", CLEAR), ("near", NEAR)):
        for one in situations:
            about = [row for row in rows if row["situation"] == one.name]
            if about:
                lines.append({"": group, **_line(one, about)})
    return lines


def _line(one: Situation, rows: Sequence[Row]) -> Row:
    outcomes = [row["outcome"] for row in rows]
    timing_s, wall_s = ([row[key] for row in rows] for key in ("timing_s", "wall_s"))
    return {
        "slower": f"{one.slowdown:.1%}",
        "limit": f"{one.max_slowdown:.1%}",
        "distance": f"{one.distance:+.1%}",
        "right": one.right,
        "trials": len(rows),
        **{outcome: f"{outcomes.count(outcome) / len(rows):.0%}" for outcome in ("pass", "fail", "inconclusive")},
        "pairs": f"{statistics.median(row['pairs'] for row in rows):.0f}",
        "timing s": f"{statistics.median(timing_s):.2f}",
        "90%": f"{common.percentile_90(timing_s):.2f}",
        "wall s": f"{statistics.median(wall_s):.2f}",
        "90% wall": f"{common.percentile_90(wall_s):.2f}",
    }


if __name__ == "__main__":
    main()
