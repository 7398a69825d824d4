"""A gate of many cases: whether its time and its memory grow with the cases only, and what its reports become."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY, Row
from pytest_modelopt.cli.comment import comment
from pytest_modelopt.fleet.engine import Cluster
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.record import Record

RECIPES = (
    "int8-dynamic",
    "int8-weight-only",
    "bf16",
    "low-rank(ratio=0.25)",
    "low-rank(ratio=0.5)",
    "prune-unstructured(ratio=0.3)",
    "prune-unstructured(ratio=0.5)",
    "prune-unstructured(ratio=0.7)",
    "prune-structured(ratio=0.3)",
    "prune-structured(ratio=0.5)",
)
"""Of each model: those that torch makes at once."""
FEW = 2
"""Models of the run that the others are compared with."""
PART = 5
"""Models, of which the long run is told in parts."""
SLOPE = 0.2
COMMENT_LIMIT, SUMMARY_LIMIT = 65_536, 2**20
"""GitHub's: characters of a comment, bytes of a job's summary."""
_FACTORY = """
def m{number:02d}():
    made("m{number:02d}")
    return perceptron({width})

def d{number:02d}():
    return labelled(perceptron({width}))
"""
_SHOP = '''
"""Models of many sizes, and data that each of them labels itself."""
import os
import torch
from torch import nn

def made(name):
    with open(os.environ["TORCH_SCALE_MADE"], "a") as file:
        file.write(f"{name} {os.getpid()}\\n")

def perceptron(width):
    torch.manual_seed(width)
    layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    return nn.Sequential(*layers).eval()

def labelled(model):
    inputs = torch.randn(500, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model(inputs).argmax(1)
'''
_CONFTEST = '''
"""Notes how large each process of pytest is when a case has ended."""
import json, os, time
import psutil

def pytest_runtest_logfinish(nodeid):
    row = [os.getpid(), time.time(), psutil.Process().memory_info().rss, nodeid.split("::")[1]]
    with open(os.environ["TORCH_SCALE_CASES"], "a") as file:
        file.write(json.dumps(row) + "\\n")
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20, help=f"with {len(RECIPES)} cases each (%(default)s)")
    parser.add_argument("--processes", type=int, default=4, help="of pytest-xdist, in the last run (%(default)s)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="a further run, on this Ray cluster (`local`: of this machine)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the runs wrote here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        plans = [(FEW, 0), (options.models, 0), (options.models, options.processes)]
        runs = [run(folder / f"{models}-{processes}", models, processes) for models, processes in plans]
        if options.ray:
            placed = run(folder / "ray", options.models, 0, Cluster("ray", options.ray))
            told = beside_cluster(folder / f"{options.models}-0", runs[1], folder / "ray", placed)
    common.print_origins([common.origin()])
    show(runs)
    if options.ray:
        print(told)


def beside_cluster(here: Path, serial: Row, there: Path, placed: Row) -> str:
    """What the run on a cluster came to beside the one in one process."""
    one, other = (record_json.read(folder / "report" / "record.json") for folder in (here, there))
    same = sum(exact(case) == exact(each) for case, each in zip(one.cases, other.cases, strict=True))
    spans = sorted(span for case in other.cases if case.timing for span in case.timing.conditions.held_ms)
    overlaps = sum(earlier[1] > later[0] for earlier, later in itertools.pairwise(spans))
    more_s = (placed["wall_s"] - serial["wall_s"]) / placed["cases"]
    return (
        f"on the cluster: {placed['wall_s']:.0f} s beside {serial['wall_s']:.0f} s ({more_s:+.2f} s for each case), "
        f"{same} of {len(one.cases)} cases with the same exact figures and outcomes, originals measured "
        f"{sorted(set(placed['originals'].values()))} times, {overlaps} of {len(spans)} timings beside another one"
    )


def exact(case: Case) -> tuple[object, ...]:
    """What repeats from run to run; of timed limits only that they were judged."""
    side = case.variant and (case.variant.memory_bytes, case.variant.size_bytes, case.variant.score)
    outcomes = [(each.limit.name, LIMITS[each.limit.name].is_timed or each.outcome) for each in case.verdicts]
    return case.id, side, case.coverage, case.drop, case.error, outcomes


def run(folder: Path, models: int, processes: int, cluster: Cluster | None = None, *, goes_on: bool = False) -> Row:
    """One gate of so many models, in its own folder; 0 processes: without pytest-xdist. `goes_on`: from the record
    of a run there that did not come to its end."""
    if not goes_on:
        write_project(folder, models)
    start = time.time()
    done = gate(folder, processes, cluster, goes_on=goes_on)
    wall_s = time.time() - start
    if done.returncode not in (0, 1):
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr}\nthe gate ended with status {done.returncode}")
    record = record_json.read(folder / "report" / "record.json")
    sizes, made, summary = (beside(folder, name) for name in ("cases", "made", "summary"))
    rows = [json.loads(line) for line in sizes.read_text(encoding="utf-8").splitlines()]
    return {
        "models": models,
        "processes": processes,
        "cases": len(record.cases),
        "wall_s": wall_s,
        "ends": sorted({model: at - start for _, at, _, model in rows}.values()),
        "sizes": _by_process(rows),
        "originals": originals(record),
        "makers": makers(made.read_text(encoding="utf-8")),
        "errors": sum(case.error is not None for case in record.cases),
        "record": (folder / "report" / "record.json").stat().st_size,
        "page": (folder / "report.html").stat().st_size,
        "summary": summary.stat().st_size,
        "comment": len(comment(record)),
        "terminal": len(done.stdout.splitlines()),
    }


def gate(
    folder: Path, processes: int = 0, cluster: Cluster | None = None, *, goes_on: bool = False
) -> subprocess.CompletedProcess[str]:
    """Pytest's run in this project. It writes nothing there but its report: a changed project is another one."""
    environment = {  # what begins with TORCH holds on a cluster, too
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TORCH_SCALE_MADE": str(beside(folder, "made")),
        "TORCH_SCALE_CASES": str(beside(folder, "cases")),
        "GITHUB_STEP_SUMMARY": str(beside(folder, "summary")),
    }
    beside(folder, "summary").touch()
    report = folder / "report"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_spread(processes)]
    command += ["--modelopt", f"--modelopt-report={report}", f"--modelopt-html={folder / 'report.html'}"]
    command += option_of(cluster)
    command += [f"--modelopt-resume={report / 'record.json'}"] if goes_on else []
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    beside(folder, "output").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done


def option_of(cluster: Cluster | None) -> list[str]:
    """Of pytest, that measures there."""
    return [] if cluster is None else [f"--modelopt-{cluster.engine}={cluster.place}"]


def beside(folder: Path, name: str) -> Path:
    """A file about the run in this folder."""
    return folder.parent / f"{name}-{folder.name}"


def _spread(processes: int) -> tuple[str, ...]:
    return ("-n", str(processes)) if processes else ()


def write_project(folder: Path, models: int) -> None:
    folder.mkdir(parents=True)
    widths = [128 + 32 * (number % 10) for number in range(models)]
    factories = "".join(_FACTORY.format(number=number, width=width) for number, width in enumerate(widths))
    (folder / "shop.py").write_text(_SHOP + factories, encoding="utf-8")
    (folder / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    limits = "{max_size: 2 MiB, max_memory: 4 MiB, max_accuracy_drop: 100 pp, min_speedup: 0.01x}"
    lines = ["version: 1", "models:"]
    for number in range(models):
        lines += [
            f"  m{number:02d}:",
            f"    factory: shop:m{number:02d}",
            f"    data: shop:d{number:02d}",
            "    recipes:",
        ]
        lines += [f"      {recipe}: {limits}" for recipe in RECIPES]
    (folder / "budgets.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _by_process(rows: Iterable[tuple[int, float, int, str]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for pid, _, size, _ in rows:
        found.setdefault(pid, []).append(size)
    return found


def originals(record: Record) -> dict[str, int]:
    """How often the original of each model was measured: measurements that differ in the times of their steps."""
    found: dict[str, list[object]] = {}
    for case in record.cases:
        of_model = found.setdefault(case.model, [])
        if case.reference is not None and case.reference.seconds not in of_model:
            of_model.append(case.reference.seconds)
    return {model: len(each) for model, each in found.items()}


def makers(text: str) -> dict[str, int]:
    """How many processes made each model, of lines `name pid`."""
    found: dict[str, set[str]] = {}
    for name, pid in (line.split() for line in text.splitlines()):
        found.setdefault(name, set()).add(pid)
    return {name: len(pids) for name, pids in found.items()}


def slope(ends: Sequence[float]) -> float:
    """Seconds for each further case, by least squares over the moments at which the models' last cases ended: cases of
    one model take turns and end together."""
    return statistics.linear_regression(range(len(ends)), ends).slope / len(RECIPES)


def growth(sizes: Sequence[int]) -> float:
    """Bytes by which a process grew with each further case, after the first fifth of them."""
    later = sizes[len(sizes) // 5 :]
    return statistics.linear_regression(range(len(later)), later).slope if len(later) > 1 else 0.0


def show(runs: Sequence[Row]) -> None:
    """The tables, and what each goal comes to."""
    print("\n" + tabulate([_row(run) for run in runs], headers="keys", disable_numparse=True))
    few, many = runs[0], runs[1]
    of_few, of_many = slope(few["ends"]), slope(many["ends"])
    further = (many["wall_s"] - few["wall_s"]) / max(1, many["cases"] - few["cases"])
    print(f"\nSeconds for each further case: {of_few:.2f} of {few['cases']} cases, {of_many:.2f} of {many['cases']}")
    print(f"({of_many / of_few - 1:+.0%}; goal: within {SLOPE:.0%}); between the two runs {further:.2f}.")
    parts = [many["ends"][at : at + PART + 1] for at in range(0, many["models"], PART)]
    print("By parts of the long run: " + ", ".join(f"{slope(part):.2f}" for part in parts if len(part) > 1) + ".")
    for run in runs:
        twice = {name: count for name, count in run["originals"].items() if count != 1}
        makes = sorted(set(run["makers"].values()))
        print(
            f"{run['cases']} cases, -n {run['processes'] or '-'}: originals measured not once: {twice or 'none'}; "
            f"processes that made a model: {makes}; comment {run['comment']:,} of {COMMENT_LIMIT:,} characters, "
            f"summary {run['summary']:,} of {SUMMARY_LIMIT:,} bytes"
        )


def _row(run: Row) -> Row:
    grown = [f"{growth(each) / 1024:.1f}" for each in run["sizes"].values() if len(each) > 1]
    return {
        "cases": run["cases"],
        "-n": run["processes"] or "-",
        "errors": run["errors"],
        "wall s": f"{run['wall_s']:.1f}",
        "s / case": f"{slope(run['ends']):.2f}",
        "MiB first, last": ", ".join(f"{s[0] / 2**20:.0f}-{s[-1] / 2**20:.0f}" for s in run["sizes"].values()),
        "KiB / case": ", ".join(grown),
        "record KiB": f"{run['record'] / 1024:.0f}",
        "page KiB": f"{run['page'] / 1024:.0f}",
        "summary KiB": f"{run['summary'] / 1024:.0f}",
        "comment": run["comment"],
        "lines": run["terminal"],
    }


if __name__ == "__main__":
    main()
