"""Rounds of comparisons of a model with a copy that is slower by a known share (or not at all), by every method.

One round is each method once, in random order, so that whatever the machine does in an hour happens to all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from benchmarks import common, methods
from benchmarks.common import Row, Store

SEED = 20260101
NOTES = """\
ours: a trial with workers of its own for each limit; what is neither pass nor fail is inconclusive.
plain script: one process, 100 calls of one and then 100 of the other, ratio of medians.
pytest-benchmark: two real pytest runs in direct succession, default calibration, --benchmark-compare-fail=mean:LIMIT.
pytest-torch: two real pytest runs in direct succession of a BenchmarkSuite (5 calls to warm up, 20 timed, median, best
of 3; its limit has 0.05 ms of slack), the first with --torch-update-perf.
The rivals' processes are forked from one that has imported torch and pytest, so their wall time is without that."""


@dataclass(frozen=True)
class Question:
    """What a benchmark of rounds asks: how much slower the copy is, at which limits, and what a `fail` then means."""

    name: str
    slowdown: float
    limits: tuple[float, ...]
    rounds: int
    fail_means: str
    """Column heading: 'false failures' or 'called'."""


def main(question: Question) -> None:
    options = _options(question)
    store = Store(options.out)
    if options.tables_only:
        show(question, store)
    else:
        common.measure_then_show(lambda: measure(question, store, options), lambda: show(question, store))


def _options(question: Question) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"{question.name}: {__doc__}")
    parser.add_argument("--condition", choices=common.CONDITIONS, default="idle", help="what runs beside it")
    parser.add_argument("--rounds", type=int, default=question.rounds)
    names = list(methods.METHODS)
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=common.RESULTS / f"{question.name}.jsonl", metavar="FILE.jsonl")
    parser.add_argument("--tables-only", action="store_true", help="print what --out holds, measure nothing")
    return parser.parse_args()


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(question: Question, store: Store, options: argparse.Namespace) -> None:
    """All rounds that the store does not hold yet, in one condition."""
    if "ours" in options.methods:
        from benchmarks import ours  # noqa: F401  (says at once when it cannot work)
    tasks = methods.tasks(options.methods, question.limits)
    done = set(map(_place, store.of_kind("comparison")))
    todo = [
        (number, task)
        for number in range(options.rounds)
        for task in _in_random_order(tasks, options.seed, options.condition, number)
        if (options.condition, number, task.name) not in done
    ]
    if not todo:
        return
    store.begin({"benchmark": question.name, "slowdown": question.slowdown, "seed": options.seed})
    with common.machine(options.condition):
        start = time.monotonic()
        for index, (number, task) in enumerate(todo):
            row = _one(question, options, number, task)
            store.append(row)
            left_min = (time.monotonic() - start) / (index + 1) * (len(todo) - index - 1) / 60
            if row["kind"] == "error":
                text = row["error"].splitlines()[0]
            else:
                text = f"{row['slowdown']:+7.1%} {row['wall_s']:5.1f} s {row['outcomes']}"
            progress = f"{options.condition}, round {number + 1} of {options.rounds}, {left_min:.0f} min left"
            print(f"{progress}: {task.name:24} {text}", file=sys.stderr, flush=True)


def _place(row: Row) -> tuple[str, int, str]:
    return row["condition"], row["round"], row["task"]


def _in_random_order(tasks: list[methods.Task], *seed: object) -> list[methods.Task]:
    return common.generator(*seed).sample(tasks, len(tasks))


def _one(question: Question, options: argparse.Namespace, number: int, task: methods.Task) -> Row:
    """One comparison as a line of the store; one that came to nothing is noted and tried again by the next run."""
    about = {"condition": options.condition, "round": number, "task": task.name, "method": task.method}
    about |= {"load_average": common.load_average()}
    seed = common.generator(options.seed, options.condition, number, task.name).randrange(2**31)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = methods.compare(task, question.slowdown, Path(folder), seed)
        except Exception as error:
            return {"kind": "error", **about, "error": f"{type(error).__name__}: {error}"}
    return {"kind": "comparison", **about, **dataclasses.asdict(found)}


# --- telling ---------------------------------------------------------------------------------------------------------


def show(question: Question, store: Store) -> None:
    """The tables of everything that the store holds."""
    common.print_origins(store.of_kind("run"))
    print(f"\nThe copy is {question.slowdown:.0%} slower than the model.\n{NOTES}")
    for condition in common.CONDITIONS:
        rows = [row for row in store.of_kind("comparison") if row["condition"] == condition]
        if rows:
            loads = [row["load_average"] for row in rows]
            print(f"\n{condition}, load average {min(loads):.1f} to {max(loads):.1f}")
            print(tabulate(table(question, rows), headers="keys", disable_numparse=True, colalign=("left",)))
    done = set(map(_place, store.of_kind("comparison")))
    errors = {_place(row): row["error"] for row in store.of_kind("error") if _place(row) not in done}
    for place, error in errors.items():
        print(f"\nNo result of {place}, which the same command tries again: {error}")


def table(question: Question, rows: Sequence[Row]) -> list[Row]:
    """One line for each method and limit."""
    lines = []
    for method in methods.METHODS:
        for text in map(methods.limit_text, question.limits):
            about = [row for row in rows if row["method"] == method and text in row["outcomes"]]
            if about:
                lines.append(_line(question, method, text, about, [row["outcomes"][text] for row in about]))
            if about and method == "pytest-torch":
                outcomes = [row["more"]["without_slack"][text] for row in about]
                lines.append(_line(question, f"{method}, no slack", text, about, outcomes))
    return lines


def _line(question: Question, method: str, limit: str, rows: Sequence[Row], outcomes: Sequence[str]) -> Row:
    failed = outcomes.count("fail")
    return {
        "method": method,
        "limit": limit,
        "comparisons": len(rows),
        question.fail_means: failed,
        "share (95%)": common.share_text(failed, len(rows)),
        "inconclusive": outcomes.count("inconclusive"),
        **_estimates(question, [row["slowdown"] for row in rows]),
        "wall s": f"{statistics.median(row['wall_s'] for row in rows):.2f}",
        "timing s": f"{statistics.median(row['timing_s'] for row in rows):.2f}",
    }


def _estimates(question: Question, slowdowns: Sequence[float]) -> Row:
    """Errors for an identical copy; for a slower one the estimates themselves.

    While a copy waits its caches cool, so it is slower by more than was asked for; how much depends on the method.
    """
    if question.slowdown == 0:
        return {
            "median error": f"{statistics.median(map(abs, slowdowns)):.1%}",
            "worst error": f"{max(slowdowns, key=abs):+.1%}",
        }
    return {"median estimate": f"{statistics.median(slowdowns):+.1%}", "lowest": f"{min(slowdowns):+.1%}"}
