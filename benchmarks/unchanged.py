"""A pull request that changes no model: how often the check against its base is red or undecided. Goal: never red.

Each round is a whole run of `pytest --modelopt --modelopt-against`, of the models of example_project against the commit
before, from which only a README differs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY, Row
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.case import Case

BUDGETS = """
version: 1
models:
  digits-vit:
    factory: example_project.vision:load_model
    data: example_project.vision:test_data
    regression: {regression}
    recipes:
      int8-dynamic: {{}}
  spoken-digits:
    factory: example_project.speech:load_model
    data: example_project.speech:test_data
    regression: {regression}
    recipes:
      int8-dynamic: {{}}
"""
REGRESSION = "{max_memory_growth: 0%, max_size_growth: 0%, max_accuracy_loss: 0 pp, max_slowdown: 10%}"
"""The exact figures of the same commit are equal, so no growth at all is allowed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    common.print_origins([common.origin()])
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        prepare(project)
        for number in range(options.rounds):
            rows.append(check(project))
            print(f"round {number + 1}: {rows[-1]}", file=sys.stderr, flush=True)
    show(rows)


def prepare(project: Path) -> None:
    """A repository with two commits, the second of which changes the README."""
    shutil.copytree(
        REPOSITORY / "example_project", project / "example_project", ignore=shutil.ignore_patterns("__pycache__")
    )
    (project / "budgets.yaml").write_text(BUDGETS.format(regression=REGRESSION), encoding="utf-8")
    (project / ".gitignore").write_text("report/\n__pycache__/\n", encoding="utf-8")
    git(project, "init", "--quiet")
    for text in ("before", "after"):
        (project / "README.md").write_text(text, encoding="utf-8")
        git(project, "add", "--all")
        git(project, "commit", "--quiet", "--message", text)


def git(project: Path, *arguments: str) -> None:
    who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    subprocess.run(["git", *who, *arguments], cwd=project, check=True)


def check(project: Path) -> Row:
    """One run: its exit status, its seconds, and how often each limit against the base ended in which way."""
    arguments = ["--modelopt", "--modelopt-against", "HEAD~1", "--modelopt-report", "report", "budgets.yaml"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=project, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        sys.exit(f"{done.stdout}\n{done.stderr}\nthe check ended with status {done.returncode}")
    cases = [case for case in record_json.read(project / "report" / "record.json").cases if case.base is not None]
    return {"status": done.returncode, "seconds": seconds, **outcomes(cases)}


def outcomes(cases: list[Case]) -> dict[str, int]:
    counted = Counter(
        f"{'timed' if verdict.limit.name == 'max_slowdown' else 'exact'} {verdict.outcome}"
        for case in cases
        for verdict in case.verdicts
    )
    errors = sum(case.error is not None for case in cases)
    return {**counted, **({"errors": errors} if errors else {})}


def show(rows: list[Row]) -> None:
    names = sorted({name for row in rows for name in row} - {"status", "seconds"})
    total = {name: sum(row.get(name, 0) for row in rows) for name in names}
    green = sum(row["status"] == 0 for row in rows)
    seconds = sorted(row["seconds"] for row in rows)
    print(f"\n{green} of {len(rows)} checks green; {seconds[len(seconds) // 2]:.0f} s in the median\n")
    print(tabulate(total.items(), headers=("verdicts", "count"), tablefmt="pipe"))


if __name__ == "__main__":
    main()
