"""Verdicts on different programs: limits near the speedup of variants that was measured over an hour.

Copies of one program react alike to everything that happens on a machine, so a bias that a real comparison has does
not show with them. Here each round compares each variant once, for a fixed time, in fresh processes. The truth is that
of the machine's best state: the median of all idle rounds, as all of them together correct it. Every comparison is then
judged again at limits beside the truth, as the gate would have judged it: it stops at the first look that decides.

    python -m benchmarks.programs --condition idle --minutes 60
    python -m benchmarks.programs --tables-only
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

from benchmarks import common
from benchmarks.common import RESULTS, Row, Store
from benchmarks.serving import Program, kept, plain_ratio
from pytest_modelopt.limits.latency import interval_of
from pytest_modelopt.measuring.controller.process import Worker
from pytest_modelopt.measuring.controller.timing.earlier_runs import Run, difference
from pytest_modelopt.measuring.controller.timing.paired_timing import Listener, PairedTiming, TimingPlan
from pytest_modelopt.results.timed_pairs import EarlierRuns, Timing
from pytest_modelopt.statistics.samples import MIN_PAIRS, SEGMENT_S, Samples, latency
from pytest_modelopt.statistics.timing import LAUNCHES, Estimate, alpha_fail, decide_at_least, speedup

SEED = 20260101
TIME_LIMIT_S = 20.0
"""Of timing, per comparison: the gate's own default."""
FACTORS = (0.80, 0.90, 0.95, 1.05, 1.10, 1.25)
"""Limits, as shares of the true speedup."""
TURNS = ", in turns"
SWEPT_MIB = (1, 8, 64)
"""What is read beside each launch: how much of the caches and of the memory's bandwidth the machine has just now."""
LIMITS_OF_A_RUN = (1, 10)
"""Timed limits among which the risk of a false failure is shared."""

_VISION, _SPEECH, _SIZED = "example_project.vision", "example_project.speech", "benchmarks.sized"
_VIT = Program(f"{_VISION}:load_model", f"{_VISION}:test_data", calibration=f"{_VISION}:train_data")
_DIGITS = Program(f"{_SPEECH}:load_model", f"{_SPEECH}:test_data")
_MLP = f"{_SIZED}:vectors"
SITUATIONS: dict[str, tuple[Program, Program]] = {
    "digits-vit int8-dynamic": (_VIT, _VIT.with_recipe("int8-dynamic")),
    "digits-vit prune-structured(0.7) + int8-dynamic": (
        _VIT,
        _VIT.with_recipe("prune-structured(ratio=0.7) + int8-dynamic"),
    ),
    "digits-vit low-rank(0.5)": (_VIT, _VIT.with_recipe("low-rank(ratio=0.5)")),
    "digits-vit prune-unstructured(0.5)": (_VIT, _VIT.with_recipe("prune-unstructured(ratio=0.5)")),
    "digits-vit prune-structured(0.7) + onnxruntime": (
        _VIT,
        _VIT.with_recipe("prune-structured(ratio=0.7) + onnxruntime"),
    ),
    "digits-vit litert-int8": (_VIT, _VIT.with_recipe("litert-int8")),
    "spoken-digits int8-dynamic": (_DIGITS, _DIGITS.with_recipe("int8-dynamic")),
    "convolutions fold-batchnorm + channels-last": (
        Program(f"{_SIZED}:convolutions", f"{_SIZED}:images"),
        Program(f"{_SIZED}:convolutions", f"{_SIZED}:images", "fold-batchnorm + channels-last"),
    ),
    "attention int8-weight-only": (
        Program(f"{_SIZED}:attention", f"{_SIZED}:images"),
        Program(f"{_SIZED}:attention", f"{_SIZED}:images", "int8-weight-only"),
    ),
    "MLP of 0.1 MiB int8-dynamic": (
        Program(f"{_SIZED}:mlp_100_kib", f"{_SIZED}:short_vectors"),
        Program(f"{_SIZED}:mlp_100_kib", f"{_SIZED}:short_vectors", "int8-dynamic"),
    ),
    "MLP of 400 MiB int8-dynamic": (
        Program(f"{_SIZED}:mlp_400_mib", _MLP),
        Program(f"{_SIZED}:mlp_400_mib", _MLP, "int8-dynamic"),
    ),
    "MLP of 12 MiB against 14 MiB": (Program(f"{_SIZED}:mlp_12_mib", _MLP), Program(f"{_SIZED}:mlp_14_mib", _MLP)),
    "digits-vit, a copy": (_VIT, _VIT),
    "convolutions, a copy": 2 * (Program(f"{_SIZED}:convolutions", f"{_SIZED}:images"),),
    "MLP of 12 MiB, a copy": 2 * (Program(f"{_SIZED}:mlp_12_mib", _MLP),),
}


class Sampled(NamedTuple):
    """One pair as it is kept."""

    launch: int
    at_ms: int
    reference_ns: int
    variant_ns: int
    canary_ns: int
    reference_block_ns: int
    variant_block_ns: int
    reference_delayed_ns: int
    variant_delayed_ns: int


@dataclass(frozen=True)
class Judged:
    """What the gate would have said of one comparison at one limit."""

    outcome: str
    seconds: float
    launches: int
    estimate: Estimate


def main() -> None:
    options = _options()
    store = Store(options.out)
    if options.tables_only:
        show(store)
    else:
        common.measure_then_show(lambda: measure(store, options), lambda: show(store))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--condition", choices=common.CONDITIONS, default="idle", help="what runs beside it")
    parser.add_argument("--turns", action="store_true", help="the launches of all situations of a round take turns")
    parser.add_argument("--rivals", action="store_true", help="also pytest-benchmark and pytest-torch")
    parser.add_argument("--seconds", type=float, default=TIME_LIMIT_S, help="of timing for each comparison")
    parser.add_argument("--minutes", type=float, default=100.0, help="no round begins after so many")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--situations", nargs="+", choices=list(SITUATIONS), default=list(SITUATIONS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS / "programs.jsonl", metavar="FILE.jsonl")
    parser.add_argument("--tables-only", action="store_true", help="print what --out holds, measure nothing")
    return parser.parse_args()


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(store: Store, options: argparse.Namespace) -> None:
    """Rounds that the store does not hold yet, in one condition."""
    done = Counter((row["condition"], row["situation"]) for row in store.of_kind("sample"))
    condition = f"{options.condition}{TURNS if options.turns else ''}, {options.seconds:g} s"
    for name in options.situations:
        for program in SITUATIONS[name]:
            kept(program)  # made before the clock runs: converting a model takes up to a minute
    store.begin({"benchmark": "programs", "seed": SEED})
    start = time.monotonic()
    torch.set_num_threads(1)
    with common.machine(options.condition):
        for number in range(options.rounds):
            if time.monotonic() - start > 60 * options.minutes:
                return
            names = [name for name in options.situations if done[condition, name] <= number]
            names = common.generator(SEED, condition, number).sample(names, len(names))
            for together in [names] if options.turns else [[name] for name in names]:
                for row in _samples(together, condition, number, options) if together else ():
                    store.append(row)
                    text = f"{_whole(row).figure:.3f}x, state {_whole(row).from_state:.1%}, plain {row['plain']:.3f}x"
                    print(f"{condition}, round {number + 1}: {row['situation']}: {text}", file=sys.stderr, flush=True)


def _samples(names: Sequence[str], condition: str, number: int, options: argparse.Namespace) -> list[Row]:
    """A comparison of each; of several, the launches take turns, as those of one model do in the gate."""
    plan = TimingPlan(options.seconds, 600.0, SEED + number, threads=1)
    runs = {name: PairedTiming(plan, lambda samples, call: True, Listener()) for name in names}
    sweeps: dict[str, list[list[int]]] = {name: [] for name in names}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="modelopt-") as folder:
        for launch in range(1, LAUNCHES + 1):
            for name, run in runs.items():
                alive: list[Worker] = []
                sweeps[name].append([sweep_ns(mib) for mib in SWEPT_MIB])
                try:
                    alive.extend(side.start(Path(folder)) for side in SITUATIONS[name])
                    run.take_launch(launch, *alive)
                finally:
                    for worker in alive:
                        worker.close()
    wall_s = (time.monotonic() - start) / len(names)
    return [
        _row(name, condition, number, run.timings()["whole"], options) | {"wall_s": wall_s, "sweeps_ns": sweeps[name]}
        for name, run in runs.items()
    ]


def sweep_ns(mib: int) -> int:
    """Nanoseconds of one reading of so many MiB, from the fastest fifth of at least five readings."""
    values, times = torch.ones(mib * 2**18), []
    for _ in range(max(5, 160 // mib)):
        start = time.perf_counter_ns()
        values.sum()
        times.append(time.perf_counter_ns() - start)
    return round(latency(times))


def _row(name: str, condition: str, number: int, timing: Timing, options: argparse.Namespace) -> Row:
    return {
        "kind": "sample",
        "condition": condition,
        "situation": name,
        "round": number,
        "at": time.time(),
        "load_average": common.load_average(),
        "pairs": _columns(timing),
        "seconds": timing.seconds,
        "warming": timing.warming,
        "canary_at_best": timing.conditions.canary_at_best_ns,
        "are_large": timing.conditions.are_large,
        "delayed": timing.delayed,
        "other_cores": timing.conditions.other_cores,
        "plain": plain_ratio(*SITUATIONS[name]),
        "rivals": _rivals(name) if options.rivals else {},
    }


def _rivals(name: str) -> dict[str, float]:
    from benchmarks import methods

    with tempfile.TemporaryDirectory(prefix="rivals-") as folder:
        return methods.ratios_of_rivals([kept(program) for program in SITUATIONS[name]], Path(folder))


def _columns(timing: Timing) -> dict[str, list[int]]:
    return {name: [getattr(pair, name) for pair in timing.pairs] for name in Sampled._fields}


def _pairs(row: Row) -> list[Sampled]:
    return [Sampled(*values) for values in zip(*(row["pairs"][name] for name in Sampled._fields), strict=True)]


# --- judging ---------------------------------------------------------------------------------------------------------


def judge(row: Row, limit: float, timed_limits: int, earlier: EarlierRuns | None = None) -> Judged:
    """As paired timing looks at a comparison while it goes on, and the judge at its end."""
    pairs, next_look_s = _pairs(row), SEGMENT_S
    for count in range(1, len(pairs) + 1):
        is_last = count == len(pairs)
        seconds = row["seconds"] if is_last else pairs[count].at_ms / 1e3
        if not is_last and (seconds < next_look_s or count < MIN_PAIRS):
            continue
        next_look_s = max(2 * next_look_s, seconds)
        estimate = speedup(_of(row, pairs[:count], earlier))
        outcome = decide_at_least(estimate, limit, alpha_fail=alpha_fail(timed_limits))
        if is_last or outcome != "inconclusive":
            return Judged(outcome, seconds, pairs[count - 1].launch, estimate)
    raise ValueError("a comparison without pairs")


def _whole(row: Row, earlier: EarlierRuns | None = None) -> Estimate:
    return speedup(_of(row, _pairs(row), earlier))


def _of(row: Row, pairs: Sequence[Sampled], earlier: EarlierRuns | None = None) -> Samples:
    return Samples.of(pairs, row["canary_at_best"], earlier=earlier, are_large=row["are_large"])


def earlier_runs(rows: Sequence[Row]) -> list[EarlierRuns | None]:
    """What the machine had read of each comparison before it, as the gate keeps it."""
    found: dict[int, EarlierRuns | None] = {}
    runs: dict[str, list[Run]] = {}
    for index in sorted(range(len(rows)), key=lambda index: float(rows[index]["at"])):
        row = rows[index]
        before = runs.setdefault(row["situation"], [])
        found[index] = difference(before, "")
        before.append(_run(row))
    return [found[index] for index in range(len(rows))]


def truths(store: Store) -> dict[str, float]:
    """The speedup of each situation at the machine's best state: the median of its idle comparisons, each corrected by
    what all of them show."""
    found: dict[str, list[Row]] = {}
    for row in store.of_kind("sample"):
        if row["condition"].startswith("idle"):
            found.setdefault(row["situation"], []).append(row)
    together = {name: difference(map(_run, rows), "") for name, rows in found.items()}
    return {name: statistics.median(_whole(row, together[name]).figure for row in rows) for name, rows in found.items()}


def _run(row: Row) -> Run:
    found = Run.of("", "whole", _of(row, _pairs(row)))
    if found is None:
        raise ValueError(f"{row['situation']}, round {row['round']}: too few pairs")
    return found


# --- telling ---------------------------------------------------------------------------------------------------------


def show(store: Store) -> None:
    """The tables of everything that the store holds."""
    common.print_origins(store.of_kind("run"))
    known = truths(store)
    for condition in sorted({row["condition"] for row in store.of_kind("sample")}, key=_idle_first):
        rows = [row for row in store.of_kind("sample") if row["condition"] == condition and row["situation"] in known]
        loads = [row["load_average"] for row in rows]
        hours = (max(row["at"] for row in rows) - min(row["at"] for row in rows)) / 3600
        print(f"\n## {condition}: {len(rows)} comparisons within {hours:.1f} h, ", end="")
        print(f"load average {min(loads):.1f} to {max(loads):.1f}\n")
        learned, none = earlier_runs(rows), [None] * len(rows)
        print(tabulate(_spreads(rows, learned, known), headers="keys", disable_numparse=True))
        for timed_limits in LIMITS_OF_A_RUN:
            for earlier, text in ((none, "earlier runs not known"), (learned, "with what earlier runs show")):
                print(
                    f"\n{condition}, {timed_limits} timed limit{'s' if timed_limits > 1 else ''} in the run, {text}\n"
                )
                print(tabulate(_verdicts(rows, earlier, known, timed_limits), headers="keys", disable_numparse=True))


def _idle_first(condition: str) -> tuple[bool, str]:
    return not condition.startswith("idle"), condition


def _spreads(rows: Sequence[Row], learned: Sequence[EarlierRuns | None], known: dict[str, float]) -> list[Row]:
    lines = []
    for name, truth in known.items():
        indices = [index for index, row in enumerate(rows) if row["situation"] == name]
        about = [rows[index] for index in indices]
        if not about:
            continue
        estimates = [_whole(row) for row in about]
        figures = [estimate.figure for estimate in estimates]
        knowing = [_whole(rows[index], learned[index]) for index in indices]
        held, held_knowing = (
            sum(low <= truth <= high for low, high in (interval_of(each, 1) for each in found))
            for found in (estimates, knowing)
        )
        lines.append(
            {
                "program": name,
                "runs": len(about),
                "truth": f"{truth:.3f}x",
                "reads": f"{min(figures):.3g} to {max(figures):.3g}",
                "sd": f"{_spread(figures):.1%}",
                "plain script": f"{min(row['plain'] for row in about):.3g} to {max(row['plain'] for row in about):.3g}",
                "its sd": f"{_spread([row['plain'] for row in about]):.1%}",
                "1 s spreads": f"{statistics.median(each.scale for each in estimates):.1%}",
                "error": f"{statistics.median(each.error for each in estimates):.1%}",
                "holds truth": common.share_text(held, len(about)),
                "with earlier runs": common.share_text(held_knowing, len(about)),
                "from state": f"{statistics.median(each.from_state for each in estimates):.1%}",
                "warming": f"{statistics.median(row['warming'] for row in about):.0%}",
            }
        )
    return lines


def _spread(figures: Sequence[float]) -> float:
    return statistics.stdev(map(math.log, figures)) if len(figures) > 1 else math.nan


def _verdicts(
    rows: Sequence[Row], earlier: Sequence[EarlierRuns | None], known: dict[str, float], timed_limits: int
) -> list[Row]:
    lines = []
    for factor in FACTORS:
        judged = [
            judge(row, factor * known[row["situation"]], timed_limits, before)
            for row, before in zip(rows, earlier, strict=True)
        ]
        found = Counter(each.outcome for each in judged)
        wrong = found["fail"] if factor < 1 else found["pass"]
        limits = [factor * known[row["situation"]] for row in rows]
        figures = [{"plain script": row["plain"], **row.get("rivals", {})} for row in rows]
        others = {
            name: [found[name] >= limit for found, limit in zip(figures, limits, strict=True) if name in found]
            for name in ("plain script", "pytest-benchmark", "pytest-torch")
        }
        lines.append(
            {
                "limit": f"{factor:.2f} of the truth",
                "right": "pass" if factor < 1 else "fail",
                "comparisons": len(rows),
                "wrong": wrong,
                "wrong (95%)": common.share_text(wrong, len(rows)),
                "inconclusive": f"{found['inconclusive'] / len(rows):.0%}",
                "seconds": f"{statistics.median(each.seconds for each in judged):.1f}",
                "90%": f"{common.percentile_90([each.seconds for each in judged]):.1f}",
                "launches": f"{statistics.fmean(each.launches for each in judged):.1f}",
                **{
                    f"{name} wrong": common.share_text(sum(ok != (factor < 1) for ok in found), len(found))
                    for name, found in others.items()
                    if found
                },
            }
        )
    return lines


if __name__ == "__main__":
    main()
