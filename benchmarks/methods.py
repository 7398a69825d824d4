"""Four ways to ask whether a model got slower: a plain script, pytest-benchmark, pytest-torch, and ours.

Each gets the same model and the same image, one thread, and processes of its own. To spare time, the rivals' processes
are forked from this one, which has imported torch and pytest; inside, a real `pytest.main` runs a real test file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from benchmarks.common import Row
from benchmarks.rivals import workload

PLAIN_WARMUP = 10
PLAIN_CALLS = 100
_CHILD_LIMIT_S = 120
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Comparison:
    """What one method said about the copy, for each limit by its text, such as `10%`."""

    outcomes: dict[str, str]
    """pass, fail or (ours alone) inconclusive."""
    slowdown: float
    """The estimate: new time / old time - 1."""
    timing_s: float
    wall_s: float
    more: Row
    """What belongs to this method alone."""


@dataclass(frozen=True)
class Task:
    """One place in a round: a method, and the limits that one comparison of its kind serves."""

    method: str
    limits: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.method} {', '.join(map(limit_text, self.limits))}"


class MethodFailed(Exception):
    """A comparison came to no result; the message holds what was printed."""


def limit_text(limit: float) -> str:
    return f"{limit:.0%}"


def tasks(names: Sequence[str], limits: Sequence[float]) -> list[Task]:
    """Ours stops when its limit is decided, so each limit is a comparison; the rivals measure once for all limits."""
    made = []
    for name in names:
        made += [Task(name, (limit,)) for limit in limits] if name == "ours" else [Task(name, tuple(limits))]
    return made


def compare(task: Task, slowdown: float, folder: Path, seed: int) -> Comparison:
    """Run one comparison; `folder` is empty and its own."""
    start = time.perf_counter()
    found = METHODS[task.method](slowdown, task.limits, folder, seed)
    return Comparison(*found[:3], wall_s=time.perf_counter() - start, more=found[3])


Found = tuple[dict[str, str], float, float, Row]
"""Outcomes, estimate, seconds of timing, more."""


def _verdict(failed: bool) -> str:
    return "fail" if failed else "pass"


# --- ours ------------------------------------------------------------------------------------------------------------


def _ours(slowdown: float, limits: Sequence[float], folder: Path, seed: int) -> Found:
    from benchmarks import ours

    (limit,) = limits
    done = ours.compare(slowdown=slowdown, max_slowdown=limit, folder=folder, seed=seed)
    estimate = 1 / done.estimate.figure - 1
    more = {"pairs": len(done.timing.pairs)}
    return {limit_text(limit): done.outcome(1 / (1 + limit))}, estimate, done.timing.seconds, more


# --- a plain script --------------------------------------------------------------------------------------------------


def _plain(slowdown: float, limits: Sequence[float], folder: Path, seed: int) -> Found:
    before, after, timing_s = _in_fresh_process(folder / "plain.log", _two_blocks, slowdown)
    estimate = statistics.median(after) / statistics.median(before) - 1
    return {limit_text(limit): _verdict(estimate > limit) for limit in limits}, estimate, timing_s, {}


def _two_blocks(slowdown: float) -> tuple[list[float], list[float], float]:
    """Load both, warm both up, then time 100 calls of one and 100 of the other."""
    models, image = [workload.model(0.0), workload.model(slowdown)], workload.image()
    with torch.inference_mode():
        for model in models:
            for _ in range(PLAIN_WARMUP):
                model(image)
        start = time.perf_counter()
        before, after = ([_seconds(model, image) for _ in range(PLAIN_CALLS)] for model in models)
        return before, after, time.perf_counter() - start


def _seconds(model: torch.nn.Module, image: torch.Tensor) -> float:
    start = time.perf_counter()
    model(image)
    return time.perf_counter() - start


# --- pytest-benchmark ------------------------------------------------------------------------------------------------


def _pytest_benchmark(slowdown: float, limits: Sequence[float], folder: Path, seed: int) -> Found:
    """Two runs with the default calibration, the second with --benchmark-compare-fail=mean:LIMIT for every limit.

    Its exit status says whether any limit was broken; which ones, its own check says about the data that it saved.
    """
    storage, checks = folder / "storage", [f"mean:{limit_text(limit)}" for limit in limits]
    common = (f"--benchmark-storage={storage}",)
    # All limits after one flag: of a flag that is given twice, the tool takes the last.
    compared = ("--benchmark-compare-fail", *checks, "--benchmark-compare=0001")
    first = _run_pytest(folder, "pytest_benchmark", (*common, "--benchmark-save=before"))
    slowed = {workload.SLOWDOWN_VARIABLE: str(slowdown)}
    second = _run_pytest(folder, "pytest_benchmark", (*common, "--benchmark-save=after", *compared), slowed)
    before, after = (_saved_stats(storage, name, run) for name, run in (("before", first), ("after", second)))
    from pytest_benchmark.utils import parse_compare_fail

    failed = [bool(parse_compare_fail(check).fails(after, before)) for check in checks]
    second.must_agree_with(failed)
    outcomes = {limit_text(limit): _verdict(bad) for limit, bad in zip(limits, failed, strict=True)}
    more = {"rounds": [before["rounds"], after["rounds"]]}
    return outcomes, after["mean"] / before["mean"] - 1, before["total"] + after["total"], more


def _saved_stats(storage: Path, name: str, run: _Run) -> Row:
    paths = list(storage.rglob(f"*_{name}.json"))
    if len(paths) != 1:
        raise run.failed("saved no data")
    stats: Row = json.loads(paths[0].read_text(encoding="utf-8"))["benchmarks"][0]["stats"]
    return stats


# --- pytest-torch ----------------------------------------------------------------------------------------------------


def _pytest_torch(slowdown: float, limits: Sequence[float], folder: Path, seed: int) -> Found:
    """Two runs of a BenchmarkSuite, the first with --torch-update-perf; the tool's own `compare_perf` decides.

    It adds a slack of 0.05 ms to each limit, which a suite cannot change; `without_slack` is what the ratio alone says.
    """
    baselines, results = folder / "baselines.json", [folder / "before.json", folder / "after.json"]
    common = ("--torch-benchmark", f"--torch-perf-file={baselines}")
    first = _run_pytest(
        folder, "pytest_torch", (*common, f"--torch-benchmark-json={results[0]}", "--torch-update-perf")
    )
    slowed = {workload.SLOWDOWN_VARIABLE: str(slowdown), workload.LIMIT_VARIABLE: str(min(limits))}
    second = _run_pytest(folder, "pytest_torch", (*common, f"--torch-benchmark-json={results[1]}"), slowed)
    before, after = (_only_median_ms(path, run) for path, run in zip(results, (first, second), strict=True))
    broken = _in_fresh_process(folder / "decide.log", _broken_in_pytest_torch, baselines, after, list(limits))
    second.must_agree_with(broken)
    outcomes = {limit_text(limit): _verdict(bad) for limit, bad in zip(limits, broken, strict=True)}
    estimate = after / before - 1
    without_slack = {limit_text(limit): _verdict(estimate > limit) for limit in limits}
    return outcomes, estimate, first.timing_s + second.timing_s, {"without_slack": without_slack}


def _only_median_ms(path: Path, run: _Run) -> float:
    if not path.exists():
        raise run.failed("wrote no results")
    data = json.loads(path.read_text(encoding="utf-8"))
    (result,) = data["results"] if isinstance(data, dict) else data
    return float(result["median_ms"])


def _broken_in_pytest_torch(baselines: Path, median_ms: float, limits: list[float]) -> list[bool]:
    from pytest_torch.perf import PerfStore, compare_perf

    (entry,) = json.loads(baselines.read_text(encoding="utf-8"))["entries"]
    key, hardware = entry.split("|", 1)
    broken = []
    for limit in limits:
        try:
            compare_perf(PerfStore(baselines), key, hardware, median_ms, None, strict=True, latency_tolerance=limit)
        except AssertionError:
            broken.append(True)
        else:
            broken.append(False)
    return broken


# --- two programs that are kept on disk ------------------------------------------------------------------------------


def ratios_of_rivals(sides: Sequence[tuple[Path, Path]], folder: Path) -> dict[str, float]:
    """The first program's time by the second's, as each rival has it: files of model and inputs of two programs."""
    settings = [dict(zip(workload.PROGRAM_VARIABLES, map(str, side), strict=True)) for side in sides]
    storage = folder / "storage"
    means, medians = [], []
    for name, side in zip(("before", "after"), settings, strict=True):
        saved = (f"--benchmark-storage={storage}", f"--benchmark-save={name}")
        means.append(_saved_stats(storage, name, _run_pytest(folder, "pytest_benchmark", saved, side))["mean"])
    for name, side in zip(("before", "after"), settings, strict=True):
        result = folder / f"{name}.json"
        timed = ("--torch-benchmark", f"--torch-perf-file={folder / name}-perf.json", "--torch-update-perf")
        run = _run_pytest(folder, "pytest_torch", (*timed, f"--torch-benchmark-json={result}"), side)
        medians.append(_only_median_ms(result, run))
    return {"pytest-benchmark": means[0] / means[1], "pytest-torch": medians[0] / medians[1]}


# --- real pytest in fresh processes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """One real pytest session. A red one is an answer, too; what it measured is in the files that it wrote."""

    status: int
    timing_s: float
    """Where the test leaves it, else 0."""
    log: Path

    def failed(self, what: str) -> MethodFailed:
        return MethodFailed(f"a pytest session with status {self.status} {what}:\n{_tail(self.log)}")

    def must_agree_with(self, broken: Sequence[bool]) -> None:
        """The session itself was told all limits, or the lowest: it is red exactly when one is broken."""
        if self.status not in (0, 1) or (self.status == 1) != any(broken):
            raise self.failed(f"does not fit what its data says, {broken}")


def _run_pytest(folder: Path, tool: str, arguments: Sequence[str], settings: Mapping[str, str] = NOTHING) -> _Run:
    """One session with this one plugin, in a process of its own, which has `settings` in its environment."""
    configuration = folder / "pytest.ini"
    configuration.write_text("[pytest]\n", encoding="utf-8")
    test = Path(workload.__file__).with_name(f"with_{tool}.py")
    options = ("-c", str(configuration), "-p", "no:cacheprovider", "-p", f"{tool}.plugin", *arguments, str(test))
    log = folder / f"{tool}-{len(list(folder.glob('*.log')))}.log"
    status, timing_s = _in_fresh_process(log, _pytest_main, options, dict(settings))
    return _Run(status, timing_s, log)


def _pytest_main(options: Sequence[str], settings: Mapping[str, str]) -> tuple[int, float]:
    # pytest-modelopt and the other rival are installed, too: only the plugin that is named may load.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.update(settings)
    try:
        status = int(pytest.main(list(options)))
    except Exception:  # pytest-benchmark raises its regression through pytest: `python -m pytest` ends with status 1
        traceback.print_exc()
        status = 1
    return status, workload.seconds_of_timing


def _in_fresh_process(log: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a forked child, whose output goes to `log`."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, log, function, arguments))
    child.start()
    sender.close()
    try:
        if not receiver.poll(_CHILD_LIMIT_S):
            raise MethodFailed(f"no answer within {_CHILD_LIMIT_S} s:\n{_tail(log)}")
        return receiver.recv()
    except EOFError:
        raise MethodFailed(f"the process ended without an answer:\n{_tail(log)}") from None
    finally:
        child.join(5)
        child.kill()
        child.join()


def _answer(sender: Connection, log: Path, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        sender.send(function(*arguments))
    except BaseException:
        traceback.print_exc()
        raise


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


METHODS: dict[str, Callable[[float, Sequence[float], Path, int], Found]] = {
    "ours": _ours,
    "plain script": _plain,
    "pytest-benchmark": _pytest_benchmark,
    "pytest-torch": _pytest_torch,
}
