"""Confirmed limits in fresh runs: what `explore --write` has written, gated again and again by `pytest --modelopt`.

Each aim of each model has a folder of its own in bench-results/explore-confirmed: the budgets file that explore wrote
there, and a line for each run. Limits that are exact or on answers are counted apart from timed ones, which mean
something on an idle machine only. The same command goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml
from tabulate import tabulate

from benchmarks import common
from benchmarks.common import REPOSITORY, RESULTS, Row, Store
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.verdicts import Verdict

FOLDER = RESULTS / "explore-confirmed"
COMMAND = "import sys; from pytest_modelopt.cli.main import main; sys.exit(main())"


def run(model: str, models: str, aim: str, *, time_s: float, recipes: list[str], fresh: int, timed: bool) -> None:
    """Have explore write its choice, unless it has, and gate it until there are so many fresh runs.

    `timed`: with its timed limits. Such runs and those without are counted apart.
    """
    folder = FOLDER / f"{model}-{aim}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    store = Store(folder / "runs.jsonl")
    store.begin({"model": model, "aim": aim, "time": time_s, "recipes": recipes})
    try:
        if not (folder / "budgets.yaml").exists():
            _write(folder, models, model, ["--aim", aim, "--time", f"{time_s:g} s", *_options(recipes)])
        done = sum(row["timed"] is timed for row in store.of_kind("gate"))
        for _ in range(fresh - done):
            store.append({"kind": "gate", "timed": timed, **_gated(folder, timed=timed)})
    finally:
        show()


def _options(recipes: list[str]) -> list[str]:
    return [word for recipe in recipes for word in ("--recipe", recipe)]


def _write(folder: Path, models: str, model: str, options: list[str]) -> None:
    """Raises SystemExit where explore confirms nothing."""
    entry = yaml.safe_load(models)["models"][model]
    words = [word for key in ("data", "calibration", "metric") if key in entry for word in (f"--{key}", entry[key])]
    limits = ["--max-accuracy-drop", "1 pp", "--min-size-reduction", "10%"]
    command = ["explore", entry["factory"], *words, *limits, "--name", model, "--time-limit", "2 s", *options]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *command, "--write"], cwd=folder, env=_environment(folder), check=False
    )
    if done.returncode or not (folder / "budgets.yaml").exists():
        sys.exit(f"explore has confirmed nothing for {model}: give it more --time")


def _gated(folder: Path, *, timed: bool) -> Row:
    """One run of the gate: the verdicts by name of the limit."""
    budgets = folder / ("budgets.yaml" if timed else "budgets-without-times.yaml")
    if not timed:
        written = (folder / "budgets.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
        budgets.write_text("".join(line for line in written if not _is_timed(line)), encoding="utf-8")
    record = folder / "gate" / "record.json"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-report=gate", "-p", "no:cacheprovider", "-q"]
    command.append(f"--modelopt-budgets={budgets.name}")
    subprocess.run(command, cwd=folder, env=_environment(folder), check=False, capture_output=True)
    (case,) = read_judged(record).cases
    error = case.error.message if case.error is not None else ""
    return {"recipe": case.recipe, "error": error, "outcomes": dict(map(_outcome, case.verdicts))}


def _is_timed(line: str) -> bool:
    """Whether a line of a budgets file states a timed limit."""
    name = line.partition(":")[0].strip()
    return name in LIMITS and LIMITS[name].is_timed


def _outcome(verdict: Verdict) -> tuple[str, str]:
    return f"{verdict.limit.name} {verdict.limit.text}", verdict.outcome


def _environment(folder: Path) -> dict[str, str]:
    """With a cache of explore's own, so that no figure of another run chooses."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(folder / "cache")}


def show() -> None:
    """All models and aims: how many runs there were, and how many limits were broken in them."""
    rows, runs, broken = [], 0, 0
    for path in sorted(FOLDER.glob("*/runs.jsonl")):
        gated = Store(path).of_kind("gate")
        if not gated:
            continue
        exact, timed = (_counted(gated, is_timed=each) for each in (False, True))
        bad = sum(bool(row["error"]) or "fail" in _of(row, is_timed=False) for row in gated)
        runs, broken = runs + len(gated), broken + bad
        rows.append((path.parent.name, gated[0]["recipe"], len(gated), exact, timed, bad))
    print(tabulate(rows, ("model and aim", "recipe", "runs", "exact and answers", "timed", "broken runs")))
    print(f"runs in which an exact limit or one on answers broke: {common.share_text(broken, runs)} of {runs}")


def _of(row: Row, *, is_timed: bool) -> list[str]:
    return [each for name, each in row["outcomes"].items() if LIMITS[name.split()[0]].is_timed is is_timed]


def _counted(rows: list[Row], *, is_timed: bool) -> str:
    counts = Counter(outcome for row in rows for outcome in _of(row, is_timed=is_timed))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "-"
