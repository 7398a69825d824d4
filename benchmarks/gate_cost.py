"""Where the wall time of `make gate` goes. Goal: more than 70% is timing and the models' own work."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY, Row
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case
from pytest_modelopt.results.measurement import Measurement

STEPS = ("start", "load", "optimize", "size", "memory", "score", "timing")
COLUMNS = (*STEPS, "other")
MODELS_WORK = ("load", "optimize", "memory", "score", "timing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, metavar="DIR", help="keep the gate's report here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = (options.report or Path(folder) / "report").absolute()
        wall_s, tests_s = run_gate(report, Path(folder) / "junit.xml")
        cases = record_json.read(report / "record.json").cases
    common.print_origins([common.origin()])
    show(cases, wall_s, tests_s)


def run_gate(report: Path, junit: Path) -> tuple[float, float]:
    """(wall seconds, seconds inside tests) of the command that `make gate` runs."""
    arguments = ["--modelopt", "--modelopt-report", str(report), "example_project/tests", "budgets.yaml"]
    command = [sys.executable, "-m", "pytest", f"--junit-xml={junit}", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    wall_s = time.perf_counter() - start
    if done.returncode not in (0, 1):
        sys.exit(f"{done.stdout}\n{done.stderr}\nthe gate ended with status {done.returncode}")
    return wall_s, sum(float(test.get("time", 0)) for test in xml.parse(junit).iter("testcase"))


def steps(measurement: Measurement | None, timing_s: float = 0.0) -> dict[str, float]:
    """Seconds of one variant by step. The first worker's `environment` waits for the fork server to import torch."""
    seconds = dict(measurement.seconds) if measurement else {}
    seconds["start"] = seconds.get("start", 0.0) + seconds.pop("environment", 0.0)
    return {step: seconds.pop(step, 0.0) for step in STEPS} | {"timing": timing_s, "other": sum(seconds.values())}


def lines(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Seconds by step of each variant. An original serves all recipes of its model and stands here once."""
    found: dict[str, dict[str, float]] = {}
    seen: list[dict[str, float]] = []
    for case in cases:
        if case.reference is not None and case.reference.seconds not in seen:
            seen.append(case.reference.seconds)
            found[f"{case.model}/original ({len(seen)})"] = steps(case.reference)
        found[case.name if case.name not in found else case.id] = steps(
            case.variant, case.timing.seconds + case.timing.prepare_s if case.timing else 0.0
        )
    return found


def show(cases: Sequence[Case], wall_s: float, tests_s: float) -> None:
    by_variant = lines(cases)
    total = {step: sum(seconds[step] for seconds in by_variant.values()) for step in COLUMNS}
    measured_s = sum(total.values())
    rows = [_row(name, seconds) for name, seconds in [*by_variant.items(), ("all", total)]]
    print("\nSeconds; each original serves all recipes of its model.")
    print(tabulate(rows, headers="keys", disable_numparse=True, colalign=("left", *["right"] * (len(COLUMNS) + 1))))
    work_s = sum(total[step] for step in MODELS_WORK)
    parts = {
        "timing": total["timing"],
        "the models' own work: load, optimize, memory, score": work_s - total["timing"],
        "size: saving each model": total["size"],
        "start: workers and the fork server's import of torch": total["start"],
        "other recorded steps": total["other"],
        "tests, beside these steps": tests_s - measured_s,
        "pytest: start, collection, report": wall_s - tests_s,
        "wall time": wall_s,
    }
    print()
    print(tabulate([(name, f"{s:.1f} s", f"{s / wall_s:.0%}") for name, s in parts.items()], disable_numparse=True))
    print(f"\nTiming and the models' own work: {work_s / wall_s:.0%} of the wall time (goal: more than 70%).")


def _row(name: str, seconds: Mapping[str, float]) -> Row:
    return {
        "variant": name,
        **{step: f"{seconds[step]:.2f}" for step in COLUMNS},
        "sum": f"{sum(seconds.values()):.2f}",
    }


if __name__ == "__main__":
    main()
