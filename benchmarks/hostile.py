"""Hostile records, budgets files and recipe expressions, each given to the commands that a stranger's text reaches.

None may end in a traceback or take long, be green against plain arithmetic (`hostile_oracle`), or bring a control
character or a command of a CI system to a terminal. Each is made from the seed and its number, so it can be had again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TypeAlias

from benchmarks.hostile_green import green
from benchmarks.hostile_oracle import amount, must_be_red
from benchmarks.hostile_records import hostile
from benchmarks.hostile_text import budgets, expression, is_harmless
from pytest_modelopt.cli import main as cli
from pytest_modelopt.cli.shared.exit_codes import INTERRUPTED
from pytest_modelopt.config.loader import load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.optimizing.expression import RecipeError, parse
from pytest_modelopt.plugin.configured import run_in_project
from pytest_modelopt.reporting import formats
from pytest_modelopt.results.verdicts import ceiling_of

HANG_S = 10
"""Of the processor: several times what the longest of them takes."""
_PASSED = "**Model budgets: passed"
_PAGE = "page.html"
"""In the folder of the tally."""
_OTHERS = (
    *(["report", "--markdown"], ["merge"], ["merge", "--markdown"], ["comment"], ["report", "--html", _PAGE]),
    *(["report", "--format", name] for name in formats.names()),
)


@dataclass
class Tally:
    """What became of the inputs so far."""

    seed: int
    folder: Path
    ended: Counter[str] = field(default_factory=Counter)
    """'records: exit status 2' and so on."""
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str, content: bytes) -> None:
        self.faults.append(f"{what}: {content[:300]!r}")


Kind: TypeAlias = Callable[[Tally, Sequence[int]], None]
"""Makes the inputs of these numbers and gives them to the commands."""


class Hang(BaseException):
    """It takes longer than anything that is no hang."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hang after so many seconds of the processor, or twelve times as many of the clock: a busy machine is no
    hang, and what sleeps takes no time of the processor."""
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 12 * seconds)}

    def stop(*_: object) -> None:
        raise Hang

    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit_s in timers.values():
        signal.setitimer(timer, limit_s)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(call: Callable[[], int], what: str, content: bytes, tally: Tally) -> tuple[int | None, str]:
    """The exit status, None where there is none, and what went to standard output."""
    out, err = io.StringIO(), io.StringIO()
    status = None
    try:
        with at_most(HANG_S), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = call()
    except Hang:
        tally.fault(f"{what}: hangs", content)
    except SystemExit as ended:
        status = int(ended.code or 0)
    except Exception:
        tally.fault(f"{what}: {traceback.format_exc(limit=-3)}", content)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status is not None and (status not in (0, 1, 2) or (status == 2) != bool(err.getvalue())):
        tally.fault(f"{what}: exit status {status}, {err.getvalue()[:200]!r} on standard error", content)
    for line in {*out.getvalue().split("\n"), *err.getvalue().split("\n")}:
        if not is_harmless(line):
            tally.fault(f"{what}: more than text is printed: {line[:300]!a}", content)
    tally.ended[f"{what.split()[0]}: exit status {status}"] += 1
    return status, out.getvalue()


# --- the three kinds -------------------------------------------------------------------------------------------------


def records(tally: Tally, numbers: Sequence[int]) -> None:
    bases, file = green(), tally.folder / "record.json"
    for number in numbers:
        rng = random.Random(f"{tally.seed} record {number}")
        content = hostile(rng, bases)
        file.write_bytes(content)
        red = None
        for command in (["report"], rng.choice(_OTHERS)):
            name = f"records {number} {' '.join(command)}"
            rest = [str(tally.folder / each) if each == _PAGE else each for each in command[1:]]
            arguments = [command[0], str(file), *rest]
            status, out = _told(partial(cli.main, arguments), name, content, tally)
            if status == 0 and (command[0] != "comment" or _PASSED in out):
                red = must_be_red(content) if red is None else red
                if red:
                    tally.fault(f"{name}: green, though {red}", content)


def budgets_files(tally: Tally, numbers: Sequence[int]) -> None:
    """Inside a pytest configuration, as `validate` runs."""
    file = tally.folder / "budgets.yaml"
    for number in numbers:
        content = budgets(random.Random(f"{tally.seed} budgets {number}"))
        file.write_bytes(content)
        name = f"budgets {number} validate"
        options = cli.parser().parse_args(["validate", str(file)])
        options.root = tally.folder
        status, _ = _told(partial(cli.status_of, options), name, content, tally)
        if status in (0, 1):
            _compare_amounts(file, name, content, tally)


def _compare_amounts(file: Path, name: str, content: bytes, tally: Tally) -> None:
    """What a file that was taken bounds is what a person reads in it."""
    with contextlib.suppress(BudgetsError):
        read = load_budgets(file, relative_to=file.parent)
        limits = [limit for case in (*read.cases, *read.originals) for limit in (*case.limits, *case.regression)]
        for limit in (*limits, *(ceiling for each in limits if (ceiling := ceiling_of(each)) is not None)):
            meant = amount(limit.name, limit.text)
            if meant is None or abs(Fraction(limit.value) - meant) > abs(meant) / 10**12 + (limit.text[-1:] == "B"):
                tally.fault(f"{name}: {limit.name} {limit.text!r} was read as {limit.value}", content)


def expressions(tally: Tally, numbers: Sequence[int]) -> None:
    """Inside a pytest configuration, as `recipes` runs."""
    with contextlib.redirect_stdout(io.StringIO()):  # torch is imported here: on a busy machine that is no hang
        cli.status_of(cli.parser().parse_args(["recipes", "fold-batchnorm"]))
    for number in numbers:
        written = expression(random.Random(f"{tally.seed} expression {number}"))
        content, name = written.encode("utf-8", "surrogatepass"), f"expressions {number} recipes"
        options = cli.parser().parse_args(["recipes", "--", written])
        _told(partial(cli.status_of, options), name, content, tally)
        try:
            with at_most(HANG_S):
                spelled = parse(written).text
                if parse(spelled).text != spelled:
                    tally.fault(f"{name}: {spelled[:80]!r} is spelled otherwise when it is read again", content)
        except RecipeError:
            continue
        except (Hang, Exception):
            tally.fault(f"{name}: {traceback.format_exc(limit=-3)}", content)


def _all_of_them(kind: Kind, tally: Tally, numbers: Sequence[int], _: argparse.Namespace) -> int:
    kind(tally, numbers)
    return 0


def run(count: int, seed: int, first: int = 0) -> Tally:
    """Of each five inputs three are records, one is a budgets file and one an expression."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        tally = Tally(seed, Path(name))
        records(tally, range(first, first + count * 3 // 5))
        for kind in (budgets_files, expressions):
            inside = partial(_all_of_them, kind, tally, range(first, first + count // 5))
            if run_in_project(argparse.Namespace(), inside):
                raise SystemExit("pytest could not be configured here")
        return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first of each kind")
    options = parser.parse_args()
    start = time.monotonic()
    tally = run(options.count, options.seed, options.first)
    for what, count in sorted(tally.ended.items()):
        print(f"{what}: {count:,}")
    print(f"{options.count:,} hostile inputs, seed {options.seed}: {len(tally.faults)} faults", end="")
    print(f" ({time.monotonic() - start:.0f} s)")
    print("".join(f"{json.dumps(fault)}\n" for fault in tally.faults[:50]), end="")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
