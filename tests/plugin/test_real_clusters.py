"""A run on a real cluster, of Ray or of Slurm, one machine of which dies while it measures."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.slurm_cluster import SlurmNode, is_installed, slurm_cluster
from pytest_modelopt.fleet import project as travelling
from pytest_modelopt.fleet.engine import Cluster, EngineError
from pytest_modelopt.fleet.on_ray import RayEngine
from pytest_modelopt.results.json import read
from tests.plugin.fleet_exact import exact
from tests.plugin.own_recipe import HOOK, ROUND

Project = Callable[..., pytest.Pytester]
BUDGETS = """
version: 1
targets:
  each: {cores: 1, required: true, max_size: 1 GB}
models:
  first:
    factory: weighty:classifier
    data: shop:data
    recipes:
      int8-dynamic: {max_memory: 1 kB}
      round(step=0.001): {min_coverage: 90%, max_flips: 1%, min_speedup: 0.01x}
  doomed:
    factory: weighty:doomed
    data: shop:data
    recipes:
      int8-dynamic: {max_accuracy_drop: 10 pp}
"""
TESTS = """
import pytest

@pytest.mark.model_budget(max_size="1 MB")
def test_live(modelopt):
    modelopt("shop:classifier", "int8-dynamic", data="shop:data")
"""
WEIGHTY = """
import os, pathlib, time
import shop
HERE = pathlib.Path(__file__).parent
LOG = pathlib.Path(os.environ["TORCH_LOG_OF_TEST"])
def note(what):
    with LOG.open("a") as log:
        print(what, HERE, os.environ.get("OMP_NUM_THREADS"), len(os.sched_getaffinity(0)), file=log)
def classifier():
    assert len((HERE / "weights.bin").read_bytes()) == 5_000_000
    note("loaded")
    return shop.classifier()
def doomed():
    if "started" not in LOG.read_text():  # the machine on which this runs dies now
        with LOG.open("a") as log:
            print("started", os.environ.get("SLURMD_NODENAME") or os.environ["RAY_RAYLET_PID"], file=log)
        time.sleep(60)
    note("again")
    return shop.classifier()
"""


@dataclass
class RealCluster:
    """Two machines, one of which may die, and a head that measures nothing."""

    asked: Cluster
    processes: Callable[[str], list[psutil.Process]]
    """Those of one machine, by what tells it in a job's environment."""


@pytest.fixture(params=["ray", pytest.param("slurm", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealCluster]:
    yield from (_on_ray if request.param == "ray" else _on_slurm)(monkeypatch)


def _on_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[RealCluster]:
    pytest.importorskip("ray", reason="the extra `fleet` is not installed")
    from ray import cluster_utils

    def processes(raylet: str) -> list[psutil.Process]:
        found = psutil.Process(int(raylet))
        return [found, *found.children(recursive=True)]

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # a cluster in processes has no place for a token
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1, resources={"timing": 1})
    yield RealCluster(Cluster("ray", made.address), processes)
    made.shutdown()


def _on_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[RealCluster]:
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    if not is_installed():
        pytest.skip("Slurm is not installed (Debian's package `slurm-wlm`)")

    def processes(node: str) -> list[psutil.Process]:
        daemons = [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"][-2:] == ["-N", node]]
        steps = [each for each in psutil.process_iter() if _environment(each).get("SLURMD_NODENAME") == node]
        return daemons + [each.parent() or each for each in steps] + steps  # a step's parent is its `slurmstepd`

    with tempfile.TemporaryDirectory(prefix="sl", ignore_cleanup_errors=True) as name:  # of sockets paths must be short
        nodes = [SlurmNode(f"node{number}", "127.0.0.1") for number in (1, 2)]
        with slurm_cluster(Path(name, "slurm"), nodes):
            yield RealCluster(Cluster("slurm", f"{name}/shared"), processes)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        found: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return found


def test_the_record_is_that_of_a_run_here_though_a_machine_dies(
    project: Project, cluster: RealCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytester = project(BUDGETS, timed=True)
    pytester.makeconftest(ROUND + HOOK)
    pytester.makepyfile(weighty=WEIGHTY, test_it=TESTS)
    (pytester.path / "weights.bin").write_bytes(bytes(5_000_000))
    log = tmp_path / "log"
    log.write_text("", encoding="utf-8")
    monkeypatch.setenv("TORCH_LOG_OF_TEST", str(log))
    command = [sys.executable, "-m", "pytest", "--modelopt", "--modelopt-report", "report", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, f"--modelopt-{cluster.asked.engine}", cluster.asked.place],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 120
    while not (started := re.search(r"started (\w+)\n", log.read_text(encoding="utf-8"))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the doomed model was never loaded"
        time.sleep(0.05)
    for each in cluster.processes(started[1]):  # as of a machine that is switched off
        each.kill()
    output, _ = process.communicate(timeout=300)
    record = read(pytester.path / "report" / "record.json")

    assert process.returncode == pytest.ExitCode.TESTS_FAILED, output
    [note] = record.notes
    assert note.startswith("doomed on each was lost on ")
    assert note.endswith("1 test of it run again (1 of 2)")
    assert note in output
    serial = subprocess.run(
        [*command, "--modelopt-report", "serial"], cwd=pytester.path, capture_output=True, text=True, check=False
    )
    assert serial.returncode == pytest.ExitCode.TESTS_FAILED, serial.stdout
    expected = read(pytester.path / "serial" / "record.json")
    assert list(map(exact, record.cases)) == list(map(exact, expected.cases))
    assert record.complete
    assert record.timed_limits == expected.timed_limits == 1
    assert record.environment == expected.environment
    seconds = [case.reference.seconds for case in record.cases if case.model == "first" and case.reference]
    assert len(seconds) == 2
    assert seconds[0] == seconds[1], "the original is measured once"
    spans = sorted(span for case in record.cases if case.timing for span in case.timing.conditions.held_ms)
    assert len(spans) >= 4
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans)), "one at a time"
    lines = [line.split() for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("started")]
    assert {line[1] for line in lines} > {str(pytester.path)}, "the first run read a copy, the second one the project"
    threads, cores = str(os.environ.get("OMP_NUM_THREADS")), str(len(os.sched_getaffinity(0)))
    assert {tuple(line[2:]) for line in lines} == {(threads, cores)}, "as without a cluster"
    before = dict(os.environ), signal.getsignal(signal.SIGTERM), sys.excepthook
    engine = cluster.asked.connect(travelling.Project(pytester.path, {}, {}))
    assert "PYTHONBREAKPOINT" not in os.environ
    assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == before[1:]
    engine.close()
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM), sys.excepthook) == before, "this process is as it was"


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}"])
def test_where_no_cluster_is_this_is_told_at_once(address: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        at = address.format(port=unused.getsockname()[1])
        with pytest.raises(EngineError, match=rf"^there is no Ray cluster at {re.escape(at)}: .*`ray start --head`"):
            RayEngine(at, travelling.Project(Path(), {}, {}))
