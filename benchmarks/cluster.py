"""A real cluster on this machine, each node in a network namespace with an address of its own, and what it loses.

A gate of many cases runs in one process and on the cluster: each exact figure and outcome has to be the same. Then it
runs once for each fault, which comes in the middle of a timing. It needs root, `ip` and the extra `fleet`; for Slurm
(`--engine slurm`) Debian's `slurm-wlm` and the extra `slurm`.

    python -m benchmarks.cluster --models 20        # 200 cases: about 25 minutes
    python -m benchmarks.cluster --example --faults node network process head
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tabulate import tabulate

from benchmarks import common, scale
from benchmarks.common import Row
from benchmarks.slurm_cluster import SlurmNode, slurm_cluster
from pytest_modelopt.fleet.engine import Cluster
from pytest_modelopt.measuring.controller.timing.host_lock import lock_file
from pytest_modelopt.results import json as record_json
from pytest_modelopt.results.record import Record

NETWORK, PORT = "10.77.0", 6399
FAULT_MODELS = 4
"""Of the runs with a fault."""
_BRIDGE = "modelopt0"
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_START = ("start", "--disable-usage-stats", "--block")


@dataclass
class Node:
    """One namespace with a node."""

    number: int

    @property
    def name(self) -> str:
        return f"modelopt{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{10 + self.number}"

    def pids(self) -> list[int]:
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False).stdout
        return [int(line) for line in told.split()]

    def kill(self) -> None:
        """As of a machine that is switched off."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def part(self) -> None:
        """Cut its network; its processes go on."""
        _run("ip", "link", "set", f"{self.name}h", "down")

    def kill_job(self) -> None:
        """As the kernel does where memory is short: the pytest that measures there."""
        for pid in self.pids():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
            if "-m pytest " in command:
                os.kill(pid, signal.SIGKILL)


FAULTS: dict[str, Callable[[Node], None]] = {"node": Node.kill, "network": Node.part, "process": Node.kill_job}

HEAD = "head"


@dataclass
class Running:
    """A cluster: a head, which measures nothing, and nodes."""

    nodes: list[Node]
    asked: Cluster
    restart_head: Callable[[], None] = sys.exit
    """Of Slurm; the head of Ray takes the cluster with it."""


@contextlib.contextmanager
def cluster(engine: str, count: int, log: Path) -> Iterator[Running]:
    """So many nodes. What was made is taken away again."""
    nodes = [Node(number) for number in range(1, count + 1)]
    with contextlib.ExitStack() as ending:
        _run("ip", "link", "add", _BRIDGE, "type", "bridge")
        ending.callback(_run, "ip", "link", "del", _BRIDGE)
        _run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", _BRIDGE)
        _run("ip", "link", "set", _BRIDGE, "up")
        for node in nodes:
            _plug(node)
            ending.callback(_unplug, node)
        yield ending.enter_context(_on_slurm(nodes) if engine == "slurm" else _on_ray(nodes, log))


@contextlib.contextmanager
def _on_slurm(nodes: list[Node]) -> Iterator[Running]:
    machines = [  # `ip netns exec` would hide the control groups, which the daemon asks for
        SlurmNode(node.name, node.address, 6818, ("nsenter", f"--net=/run/netns/{node.name}")) for node in nodes
    ]
    short = tempfile.TemporaryDirectory(prefix="sl", ignore_cleanup_errors=True)  # of sockets paths must be
    with short as name, slurm_cluster(Path(name, "slurm"), machines, f"{NETWORK}.1") as controller:
        yield Running(nodes, Cluster("slurm", f"{name}/shared"), controller.restart)


@contextlib.contextmanager
def _on_ray(nodes: list[Node], log: Path) -> Iterator[Running]:
    address = f"{NETWORK}.1:{PORT}"
    with contextlib.ExitStack() as ending, log.open("wb") as output:
        ray = [str(Path(sys.executable).with_name("ray")), *_START]

        def start(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )
            ending.callback(_end, process)
            return process

        head = ("--head", f"--port={PORT}", f"--node-ip-address={NETWORK}.1", "--num-cpus=1")
        start(*ray, *head, "--include-dashboard=false")
        for node in nodes:
            inside = ("ip", "netns", "exec", node.name)
            of_node = (f"--address={address}", f"--node-ip-address={node.address}", "--num-cpus=1")
            start(*inside, *ray, *of_node, '--resources={"timing": 1}')
            _await_nodes(address, node.number, log)  # two that start at once take the same sockets
        yield Running(nodes, Cluster("ray", address))


def _plug(node: Node) -> None:
    outside, inside, within = f"{node.name}h", f"{node.name}n", ("ip", "netns", "exec", node.name, "ip")
    _run("ip", "netns", "add", node.name)
    _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
    _run("ip", "link", "set", outside, "master", _BRIDGE, "up")
    _run("ip", "link", "set", inside, "netns", node.name)
    _run(*within, "addr", "add", f"{node.address}/24", "dev", inside)
    _run(*within, "link", "set", inside, "up")
    _run(*within, "link", "set", "lo", "up")


def _unplug(node: Node) -> None:
    node.kill()
    _run("ip", "link", "del", f"{node.name}h")  # the kernel takes it away with the namespace, but some time after
    _run("ip", "netns", "del", node.name)


def _await_nodes(address: str, count: int, log: Path) -> None:
    """Until so many are there. Raises SystemExit where they do not come."""
    ask = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False); "
    ask += "print(sum(node['Alive'] and 'timing' in node['Resources'] for node in ray.nodes()))"
    end = time.monotonic() + 90
    told = ""
    while time.monotonic() < end:
        asked = [sys.executable, "-c", ask, address]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        told = done.stdout.strip()
        if told == str(count):
            return
        time.sleep(1)
    sys.exit(f"{told or 'none'} of {count} nodes came:\n{log.read_text(errors='replace')[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


# --- faults ----------------------------------------------------------------------------------------------------------


def timing_now(nodes: Sequence[Node]) -> Node | None:
    """The node that has the machine for itself just now: the holder of the exclusive lock."""
    inode = str(lock_file().stat().st_ino) if lock_file().exists() else ""
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if fields[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5].rpartition(":")[2] == inode:
            return next((node for node in nodes if int(fields[4]) in node.pids()), None)
    return None


@contextlib.contextmanager
def striking(made: Running, folder: Path, strike: Callable[[Node], None]) -> Iterator[list[str]]:
    """The fault comes in the middle of a timing, once the first cases were told. Names of what it has struck."""
    hit: list[str] = []

    def await_timing() -> None:
        record = folder / "report" / "record.json"
        while not stopped.wait(0.05):
            if record.exists() and (node := timing_now(made.nodes)) is not None:
                time.sleep(0.3)
                strike(node)
                hit.append(node.name)
                return

    stopped = threading.Event()
    waiting = threading.Thread(target=await_timing)
    waiting.start()
    try:
        yield hit
    finally:
        stopped.set()
        waiting.join()


def with_fault(engine: str, name: str, folder: Path, expected: Path) -> Row:
    """What a run with the fault comes to."""
    if (engine, name) == ("ray", HEAD):
        return _with_lost_head(folder, expected)
    with cluster(engine, 2, folder.with_suffix(".log")) as made:
        strike = FAULTS.get(name, lambda node: made.restart_head())
        with striking(made, folder, strike) as hit:
            done = scale.run(folder, FAULT_MODELS, 0, made.asked)
    return _row(name, hit, done, folder, expected)


def _with_lost_head(folder: Path, expected: Path) -> Row:
    """The head of Ray is killed, which ends the run; on another cluster the next one goes on from its record."""
    scale.write_project(folder, FAULT_MODELS)
    start = time.monotonic()
    with (
        cluster("ray", 2, folder.with_suffix(".log")) as made,
        striking(made, folder, lambda node: _kill_head()) as hit,
    ):
        scale.gate(folder, cluster=made.asked)
    ended_s = time.monotonic() - start
    kept = record_json.read(folder / "report" / "record.json")
    with cluster("ray", 2, folder.with_suffix(".log")) as made:
        done = scale.run(folder, FAULT_MODELS, 0, made.asked, goes_on=True)
    row = _row("head", ["head" for _ in hit], done, folder, expected)
    return row | {"notes": f"ended after {ended_s:.0f} s with {len(kept.cases)} cases in its record, which were taken"}


def _kill_head() -> None:
    """The server that knows the cluster; Ray starts it in a session of its own."""
    (server,) = (each for each in psutil.process_iter(["name"]) if each.info["name"] == "gcs_server")
    server.kill()


def _row(name: str, hit: Sequence[str], done: Row, folder: Path, expected: Path) -> Row:
    one, other = (record_json.read(each / "report" / "record.json") for each in (expected, folder))
    found = {case.id: scale.exact(case) for case in other.cases}
    return {
        "fault": name,
        "struck": ", ".join(hit) or "nobody",
        "cases": f"{len(other.cases)} of {len(one.cases)}",
        "as in one process": sum(found.get(case.id) == scale.exact(case) for case in one.cases),
        "twice": len(other.cases) - len(found),
        "originals": sorted(set(done["originals"].values())),
        "wall s": f"{done['wall_s']:.0f}",
        "notes": "; ".join(re.sub(r": Task failed.*\)", ")", note) for note in other.notes),
    }


# --- the example ------------------------------------------------------------------------------------------------------


def example(folder: Path, asked: Cluster | None = None) -> tuple[Record, float]:
    """The gate of `make gate`, on a cluster where one is given; what it found, and its seconds."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--modelopt"]
    command += [f"--modelopt-report={folder}", *scale.option_of(asked)]
    command += ["example_project/tests", "budgets.yaml"]
    start = time.monotonic()
    done = subprocess.run(command, cwd=common.REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr}\nthe gate ended with status {done.returncode}")
    return record_json.read(folder / "record.json"), time.monotonic() - start


def told_of_example(serial: tuple[Record, float], placed: tuple[Record, float]) -> str:
    """How many cases came to the same on the cluster, and which did not."""
    (one, serial_s), (other, placed_s) = serial, placed
    found = {case.id: scale.exact(case) for case in other.cases}
    unlike = [case.id for case in one.cases if found.get(case.id) != scale.exact(case)]
    outcomes = [
        Counter(verdict.outcome for case in record.cases for verdict in case.verdicts) for record in (one, other)
    ]
    alike = f"{len(one.cases) - len(unlike)} of {len(one.cases)} cases"
    return (
        f"the example's gate: {placed_s:.0f} s beside {serial_s:.0f} s, {alike} with the same exact figures and "
        f"outcomes, {len(other.cases) - len(found)} twice; verdicts "
        f"{dict(outcomes[1])} beside {dict(outcomes[0])}{'; unlike: ' + ', '.join(unlike) if unlike else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("ray", "slurm"), default="ray")
    parser.add_argument("--models", type=int, default=0, help="of the run without a fault, 10 cases each (none)")
    parser.add_argument("--example", action="store_true", help="the example's gate, too")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--faults", nargs="*", choices=[*FAULTS, HEAD], default=[])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the runs wrote here")
    options = parser.parse_args()
    os.environ.update(_SETTINGS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        common.print_origins([common.origin()])
        if options.models:
            serial = scale.run(folder / "serial", options.models, 0)
            with cluster(options.engine, options.nodes, folder / "cluster.log") as made:
                placed = scale.run(folder / "cluster", options.models, 0, made.asked)
            print(f"{options.nodes} nodes, {placed['cases']} cases, {placed['errors']} errors")
            print(scale.beside_cluster(folder / "serial", serial, folder / "cluster", placed), flush=True)
        if options.example:
            serial_gate = example(folder / "example-serial")
            with cluster(options.engine, options.nodes, folder / "example.log") as made:
                print(told_of_example(serial_gate, example(folder / "example", made.asked)), flush=True)
        if options.faults:
            scale.run(folder / "expected", FAULT_MODELS, 0)
            expected = folder / "expected"
            rows = [with_fault(options.engine, name, folder / name, expected) for name in options.faults]
            print("\n" + tabulate(rows, headers="keys", disable_numparse=True))


if __name__ == "__main__":
    main()
