"""Jobs on a Ray cluster (extra `fleet`)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_modelopt.fleet.engine import EngineError, Machine, Told
from pytest_modelopt.fleet.job import Event, Job, run_job
from pytest_modelopt.fleet.project import MANIFEST, Project, place
from pytest_modelopt.results.target import Fingerprint

LOCAL = "local"
"""Address of a cluster that is started for one run, on this machine."""
TIMING = "timing"
"""The resource of which a machine has 1, and a job takes all: so no second one is placed there."""
_KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "10000", "RAY_grpc_client_keepalive_timeout_ms": "10000"}
"""Ray's own are 5 and 2 minutes: for so long a job on a machine whose network was cut would be waited for, and others
behind it would not be placed. Its variables are taken away again with all that Ray has set."""
_ANSWER_S = 10.0
_START_S = 120.0
"""For the first process of Ray on each machine, which the project travels to."""
_REMEDY = f"""start each machine of it with `ray start --resources='{{"{TIMING}": 1}}'`"""


class RayEngine:
    """One run's jobs. The project travels once to each machine; Ray keeps it there as a runtime environment."""

    def __init__(self, address: str, project: Project) -> None:
        """Connect to the cluster at `address`, 'auto' or 'local'.

        Raises:
            EngineError: without a cluster there, or where none of its machines times.
        """
        import ray

        self._ray = ray
        self._environment = dict(os.environ)
        self._running: dict[Any, tuple[Job, Machine | None]] = {}
        """By the stream of a job's events: the job, and the machine on which it runs."""
        with tempfile.TemporaryDirectory(prefix="pytest-modelopt-project-") as name:
            project.stage(Path(name))
            self._connect(address, name)
        try:
            if not self._nodes():
                raise EngineError(f"no machine of the Ray cluster at {address} has the resource `{TIMING}`: {_REMEDY}")
            self._content = {
                digest: ray.put((project.root / path).read_bytes()) for path, digest in project.large.items()
            }
        except BaseException:
            self.close()
            raise
        self._run = ray.remote(_run)

    def _connect(self, address: str, working_dir: str) -> None:
        ray = self._ray
        _require_answer(address)
        own: dict[str, Any] = {"address": address}
        if address == LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own |= {"resources": {TIMING: 1}, "include_dashboard": False}
        for name, milliseconds in _KEEPALIVE.items():
            os.environ.setdefault(name, milliseconds)
        settings = {"working_dir": working_dir}
        try:
            with _process_kept(), warnings.catch_warnings():  # a run may make errors of them
                warnings.simplefilter("ignore")
                ray.init(
                    **own, runtime_env=settings, log_to_driver=False, logging_level="ERROR", namespace="pytest-modelopt"
                )
        except ConnectionError as error:
            raise _no_cluster(address, error) from None
        except (RuntimeError, ValueError) as error:  # a version, the size of what travels, a second connection
            raise EngineError(f"the Ray cluster at {address} cannot be used: {_first_line(error)}") from None

    def machines(self, ask: Callable[[], Fingerprint]) -> list[tuple[Machine, Fingerprint]]:
        ray = self._ray
        on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task = ray.remote(num_cpus=0)(_answer)
        told = [task.options(scheduling_strategy=on(node, soft=False)).remote(ask) for node in self._nodes()]
        try:
            return [(Machine(*machine), found) for machine, found in ray.get(told, timeout=_START_S)]
        except ray.exceptions.RayError as error:
            raise EngineError(f"a machine of the Ray cluster does not answer: {_reason(error)}") from None

    def submit(self, job: Job, avoid: Machine | None = None) -> None:
        asked: dict[str, Any] = {"num_cpus": 1, "resources": {TIMING: 1}, "max_retries": 0, "num_returns": "streaming"}
        if job.on_gpu:
            asked["num_gpus"] = 1
        nodes = [node for node in self._nodes() if not job.machines or node in job.machines]
        others = [node for node in nodes if avoid is None or node != avoid.id]
        if job.machines or (others and avoid is not None):
            asked["label_selector"] = {"ray.io/node-id": f"in({','.join(others or nodes or job.machines)})"}
        self._running[self._run.options(**asked).remote(job, self._content)] = (job, None)

    def told(self, wait_s: float) -> Iterator[Told]:
        ray = self._ray
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=wait_s) if self._running else ([], [])
        for stream in ready:
            job, machine = self._running[stream]
            try:
                event: Event = ray.get(next(stream))
            except StopIteration:
                del self._running[stream]
                continue
            except ray.exceptions.RayError as error:
                del self._running[stream]
                yield Told(job, {}, machine, lost=_reason(error))
                continue
            machine = Machine(*event.pop("machine"))
            self._running[stream] = job, machine
            yield Told(job, event, machine)

    def close(self) -> None:
        """A job that is closed ends its pytest, which ends its workers."""
        ray = self._ray
        running, self._running = self._running, {}
        for stream in running:
            with contextlib.suppress(Exception):
                ray.cancel(stream)
        with contextlib.suppress(Exception):
            ray.shutdown()
        for name in {name for name in os.environ if name.startswith("RAY_")} - set(self._environment):
            del os.environ[name]

    def _nodes(self) -> list[str]:
        """The machines that live and time."""
        return [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get(TIMING)]


def _answer(ask: Callable[[], Fingerprint]) -> tuple[tuple[str, str], Fingerprint]:
    """In a process of Ray on a machine: its id and its name, and what it says of itself."""
    return _this(), ask()


def _this() -> tuple[str, str]:
    import ray

    node = ray.get_runtime_context().get_node_id()
    return node, f"{ray.util.get_node_ip_address()} ({node[:8]})"


def _run(job: Job, content: dict[str, Any]) -> Iterator[Event]:
    """In a process of Ray on the machine that it has chosen; its folder is the copy of the project there."""
    import ray

    root, machine = Path.cwd(), _this()
    if (root / MANIFEST).exists():
        place(root, lambda digest: ray.get(content[digest]))
    for event in run_job(job, root):
        yield {**event, "machine": machine}


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """What Ray would change in the process that connects, for as long as that lives: its handler of SIGTERM leaves at
    once, with a report half told, and its debugger takes the place of Python's in each process that is started."""
    on_sigterm, on_exception = signal.getsignal(signal.SIGTERM), sys.excepthook
    debugger = os.environ.get("PYTHONBREAKPOINT")
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        sys.excepthook = on_exception
        os.environ.pop("PYTHONBREAKPOINT", None)
        if debugger is not None:
            os.environ["PYTHONBREAKPOINT"] = debugger


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes. Raises EngineError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> EngineError:
    return EngineError(
        f"there is no Ray cluster at {address}: {_first_line(error)}; start one by `ray start --head`, or name "
        f"'{LOCAL}' for one of this machine alone; where it asks for a token, set RAY_AUTH_MODE=token"
    )


def _reason(error: Exception) -> str:
    """What became of a job, in words."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "without a reason")
