"""What having the plugin installed costs a pytest start that does not use it: the goal is less than 20 ms.

Starts of `pytest --version` style runs with and without the plugin, in turns, in one run; prints the median of the
differences. Time is measured here and asserted nowhere.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from benchmarks import common

PAIRS = 40


def _start(folder: Path, *arguments: str) -> float:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    coin = random.Random(20260101)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
        _start(folder)
        with_plugin, without = [], []
        for _ in range(PAIRS):
            if coin.random() < 0.5:
                with_plugin.append(_start(folder))
                without.append(_start(folder, "-p", "no:modelopt"))
            else:
                without.append(_start(folder, "-p", "no:modelopt"))
                with_plugin.append(_start(folder))
    differences = [1e3 * (a - b) for a, b in zip(with_plugin, without, strict=True)]
    common.print_origins([common.origin()])
    low, _, high = statistics.quantiles(differences, n=4)
    row = {
        "pairs of starts, in turns": PAIRS,
        "without the plugin": f"{1e3 * statistics.median(without):.0f} ms",
        "the plugin, switched off, adds": f"{statistics.median(differences):.1f} ms",
        "middle half of the differences": f"{low:.1f} to {high:.1f} ms",
    }
    print()
    print(tabulate([row], headers="keys", disable_numparse=True))


if __name__ == "__main__":
    main()
