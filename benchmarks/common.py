"""What the benchmarks share: where they ran, results as JSON lines, an interval for shares, a load on the machine."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pytest_modelopt.statistics.proportions import share_bounds

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "bench-results"

Condition = Literal["idle", "processor", "cache", "bandwidth"]
CONDITIONS: tuple[Condition, ...] = ("idle", "processor", "cache", "bandwidth")
Row = dict[str, Any]

_PACKAGES = (
    "torch",
    "pytest",
    "pytest-modelopt",
    "pytest-benchmark",
    "pytest-torch",
    "memray",
    "onnxruntime",
)
_Z_95 = statistics.NormalDist().inv_cdf(0.975)

# The parent's end, however it comes, ends the load.
_LOADS = {
    "processor": """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
""",
    "cache": """
import os
parent, source, target = os.getppid(), memoryview(bytearray(2**20)), memoryview(bytearray(2**20))
while os.getppid() == parent:
    for _ in range(1_000):
        target[:] = source
""",
    "bandwidth": """
import os
parent, source, target = os.getppid(), memoryview(bytearray(2**28)), memoryview(bytearray(2**28))
while os.getppid() == parent:
    target[:] = source
""",
}


# --- where it ran ----------------------------------------------------------------------------------------------------


def origin() -> Row:
    """Machine, versions, command and time, as one line of a results file."""
    from pytest_modelopt.measuring.worker.environment import environment

    here = environment()
    versions = {"python": here.python}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "kind": "run",
        "machine": f"{here.cpu}, {here.cpu_count} cores, {here.cpu_capability}, {here.platform}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "command": command(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def command() -> str:
    """What a person types to repeat this run."""
    module = f"benchmarks.{Path(sys.argv[0]).stem}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def print_origins(runs: Sequence[Row]) -> None:
    """Each machine, set of versions and command once."""
    for key in ("machine", "versions", "command"):
        for value in dict.fromkeys(run[key] for run in runs):
            print(f"{key + ':':10}{value}")


# --- results ---------------------------------------------------------------------------------------------------------


class Store:
    """A file of JSON lines: what an interrupted run had found is still there, and is not measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:  # the last line was cut off by what interrupted the run
                path.write_text(whole, encoding="utf-8")
            self.rows = [json.loads(line) for line in whole.splitlines()]

    def of_kind(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row["kind"] == kind]

    def begin(self, settings: Row) -> None:
        """Note where this run takes place. Results that were made with other settings are not mixed with its own."""
        for run in self.of_kind("run"):
            if run["settings"] != settings:
                sys.exit(f"{self.path} was made with {run['settings']}, not {settings}: choose another --out")
        self.append({**origin(), "settings": settings})

    def append(self, row: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)


def measure_then_show(measure: Callable[[], None], show: Callable[[], None]) -> None:
    """Show what there is, also after an interruption, which ends the script with the usual status."""
    try:
        measure()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    finally:
        show()


# --- numbers ---------------------------------------------------------------------------------------------------------


def share_text(hits: int, trials: int) -> str:
    """`2.0% (0.9-4.3%)`: a share and its 95% interval (Wilson's)."""
    if not trials:
        return "-"
    low, high = share_bounds(hits, trials, _Z_95)
    return f"{hits / trials:.1%} ({100 * max(0.0, low):.1f}-{high:.1%})"


def percentile_90(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def generator(*parts: object) -> random.Random:
    """Random numbers of this round and purpose alone, so that a resumed run draws the same ones."""
    return random.Random("/".join(map(str, parts)))


# --- the machine's condition -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def machine(condition: Condition) -> Iterator[subprocess.Popen[bytes] | None]:
    """As the machine is, or beside one more process (it may move between cores): an interpreter's loop, copies of 1 MiB
    within the caches, or copies of 256 MiB through the memory."""
    if condition == "idle":
        yield None
        return
    # In a session of its own: Ctrl-C is for the benchmark, which then ends its load.
    load = subprocess.Popen([sys.executable, "-c", _LOADS[condition]], start_new_session=True)
    try:
        yield load
    finally:
        load.kill()
        load.wait()


def load_average() -> float:
    """Processes that ran or wanted to, over the last minute. Ours is one of them."""
    return round(os.getloadavg()[0], 2)
