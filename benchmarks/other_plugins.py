"""The gate beside other plugins of pytest: the same verdicts and outcomes as without them, on and off.

Each plugin of `plugin_uses.py` is loaded and used by tests of its own, in a project with a gate. Those tests run
without our plugin, beside it while it is off, and in one run with the gate, whose verdicts and figures must be those
of a run without the other plugin. `nox -s plugins` makes the environment. The results go to
benchmarks/other_plugins.json, and the table of docs/other-plugins.md is made of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from tabulate import tabulate

from benchmarks.common import REPOSITORY
from benchmarks.plugin_uses import PROJECT, USES, Use
from pytest_modelopt.cli.shared.judged_records import read_judged
from pytest_modelopt.limits.catalogue import LIMITS
from pytest_modelopt.results.case import Case

DATA = REPOSITORY / "benchmarks/other_plugins.json"
PAGE = REPOSITORY / "docs/other-plugins.md"
_RED = ("failure", "error", "skipped")
_SECONDS = 600
"""After which a run of pytest counts as hanging."""
_REPEATED = re.compile(r"\[\d+-\d+\]$")
"""What pytest-repeat adds to the name of a test."""
_TABLE = re.compile(r"(?<=<!-- table -->\n)[\s\S]*(?=<!-- end of the table -->)")
Ours = Literal["absent", "off", "on"]


@dataclass
class Found:
    """What the runs of one use came to."""

    sample: Counter[str] = field(default_factory=Counter)
    """How often each of the plugin's own tests came to each outcome."""
    gate: dict[str, str] = field(default_factory=dict)
    """The outcome of each test of the gate: the worst, since a test that is run again is reported before it, too."""
    verdicts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", help="of these plugins only")
    chosen = parser.parse_args().packages
    reference = _found(None, "on")
    for use in USES:
        if not chosen or use.package in chosen:
            row = _row(use, reference)
            print(json.dumps(row), flush=True)
            rows = [each for each in read_rows() if _key(each) != _key(row)]
            DATA.write_text(json.dumps(sorted([*rows, row], key=_key), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return int(any(row["differs"] for row in read_rows()))


def read_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else []
    return rows


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["package"], row["arguments"], row["pytest"]


def with_table(page: str) -> str:
    """The text of docs/other-plugins.md with the table of the data that the repository keeps."""
    cells = [
        [f"{row['package']} {row['version']}", f"`{row['arguments']}`", *_told(row), row["pytest"], row["date"]]
        for row in read_rows()
    ]
    headers = ["plugin", "arguments", "off: its tests", "on: its tests", "on: the gate", "pytest", "run on"]
    return _TABLE.sub(lambda _: f"{tabulate(cells, headers, tablefmt='github')}\n", page)


def _told(row: dict[str, Any]) -> list[str]:
    if row["broken"]:
        return ["fail by themselves", "fail by themselves", "cannot run"]
    return ["differs" if what in row["differs"] else "same" for what in ("off", "on", "gate")]


def _row(use: Use, reference: Found) -> dict[str, Any]:
    """What is the same beside this plugin; `differs` has both sides of each thing that is not."""
    absent, off, on = (_found(use, ours) for ours in get_args(Ours))
    sides = {
        "off": (sorted(absent.sample.items()), sorted(off.sample.items())),
        "on": (sorted(absent.sample.items()), sorted(on.sample.items())),
        "gate": ([reference.verdicts, reference.gate], [on.verdicts, on.gate]),
    }
    differs: dict[str, Any] = {what: pair for what, pair in sides.items() if pair[0] != pair[1]}
    for what, found in (("off", off), ("on", on), ("gate", on)):
        if found.problems:
            differs[what] = found.problems
    broken = not any(test.endswith(" passed") for test in absent.sample)
    return {
        "package": use.package,
        "version": metadata.version(use.package),
        "arguments": "; ".join(map(" ".join, use.runs)) or "no arguments",
        "broken": broken,  # without ours, too: this plugin does not work with this pytest
        "differs": {} if broken else differs,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("pytest", "torch", "pytest-modelopt")},
    }


def _found(use: Use | None, ours: Ours) -> Found:
    found = Found()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # coverage writes when a process ends
        folder = Path(name)
        for file, text in {**PROJECT, **(use.files if use else {})}.items():
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "test_sample.py").write_text(use.sample if use else "", encoding="utf-8")
        (folder / "pytest.ini").write_text(f"[pytest]\n{use.ini if use else ''}", encoding="utf-8")
        for arguments in use.runs if use else ((),):
            _run(folder, use, ours, arguments, found)
        if use and use.covers_workers and ours == "on":
            report = json.loads((folder / "coverage.json").read_text(encoding="utf-8"))
            function = report["files"]["shop.py"]["functions"]["seen_by_workers_only"]
            if function["missing_lines"]:
                found.problems.append("what workers run is not covered")
    return found


def _run(folder: Path, use: Use | None, ours: Ours, arguments: Sequence[str], found: Found) -> None:
    """Run pytest once in the folder, and add what it came to."""
    names = [*(use.plugins if use else ()), *(["modelopt"] if ours != "absent" else [])]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=junit.xml"]
    command += [argument for name in names for argument in ("-p", name)]
    command += [*arguments, *(["--modelopt", "--modelopt-report=report"] if ours == "on" else ["test_sample.py"])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "120"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        found.problems.append(f"no end within {_SECONDS} s")
        return
    if done.returncode not in (0, 1, 5):
        found.problems.append(f"exit status {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        return
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):
        name = f"{case.get('classname')}::{_REPEATED.sub('', case.get('name', ''))}"
        outcome = next((part.tag for part in case if part.tag in _RED), "passed")
        if name.startswith("test_sample::"):
            found.sample[f"{name} {outcome}"] += 1
        elif found.gate.get(name, "passed") == "passed":
            found.gate[name] = outcome
    if ours == "on":
        cases = read_judged(folder / "report" / "record.json").cases
        found.verdicts |= {_REPEATED.sub("", case.id): _told_of(case) for case in cases}


def _told_of(case: Case) -> list[Any]:
    """The stage of its error, each limit's outcome, and figures that repeat. An undecided limit on time is not broken:
    that depends on the moment."""
    limits = {
        verdict.limit.name: verdict.is_red if LIMITS[verdict.limit.name].is_timed else verdict.outcome
        for verdict in case.verdicts
    }
    figures = case.variant and [case.variant.memory_bytes, case.variant.size_bytes, case.drop]
    return [case.error and case.error.stage, limits, figures]


if __name__ == "__main__":
    sys.exit(main())
