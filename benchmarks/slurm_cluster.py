"""A real Slurm cluster on this machine, for benchmarks and tests: Debian's package `slurm-wlm`, with munge."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SLURM_CONF = "SLURM_CONF"
"""The environment variable by which Slurm's commands find their cluster."""
_DAEMONS = ("munged", "slurmctld", "slurmd")
_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
_START_S = 60.0
_CONFIGURATION = """\
ClusterName=modelopt
SlurmctldHost={host}({address})
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmUser={user}
SlurmdUser={user}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SlurmdTimeout=20
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=120 State=UP
"""


@dataclass(frozen=True)
class SlurmNode:
    """One machine of the cluster, as a daemon of its own."""

    name: str
    address: str
    port: int = 0
    """0: one that is free."""
    inside: tuple[str, ...] = ()
    """What its command begins with: the network namespace that it runs in."""
    cores: int = 1


def is_installed() -> bool:
    return all(shutil.which(each, path=_PATH) for each in _DAEMONS)


@contextlib.contextmanager
def slurm_cluster(folder: Path, nodes: Sequence[SlurmNode], address: str = "127.0.0.1") -> Iterator[Controller]:
    """The controller at `address` and these nodes, in `folder`, whose path must be short; `SLURM_CONF` names it.

    Raises SystemExit where they do not come.
    """
    folder.mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "key").write_bytes(secrets.token_bytes(128))
    (folder / "key").chmod(0o600)
    told = _CONFIGURATION.format(
        host=socket.gethostname(), address=address, port=_free_port(), folder=folder, user=getpass.getuser()
    )
    for node in nodes:
        (folder / node.name).mkdir()
        told += f"NodeName={node.name} NodeHostname={socket.gethostname()} NodeAddr={node.address} "
        told += f"Port={node.port or _free_port()} CPUs={node.cores} RealMemory=4000 State=UNKNOWN\n"
    (folder / "slurm.conf").write_text(told, encoding="utf-8")
    with contextlib.ExitStack() as ending, (folder / "output").open("wb") as output:

        def start(*command: str) -> None:
            daemon = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
            ending.callback(_end, daemon)

        def daemon(name: str) -> str:
            return shutil.which(name, path=_PATH) or name

        ending.enter_context(_named(folder / "slurm.conf"))
        files = {
            "key-file": "key",
            "socket": "munge",
            "pid-file": "munge.pid",
            "log-file": "munge.log",
            "seed-file": "seed",
        }
        start(daemon("munged"), "--foreground", "--force", *(f"--{of}={folder / name}" for of, name in files.items()))
        _await(lambda: (folder / "munge").exists(), folder)
        controller = Controller((daemon("slurmctld"), "-D"), folder / "output")
        ending.callback(controller.end)
        for node in nodes:
            start(*node.inside, daemon("slurmd"), "-D", "-N", node.name)
        _await(lambda: _idle() == len(nodes), folder)
        yield controller


@dataclass
class Controller:
    """The daemon that knows the jobs, and keeps them in a file."""

    command: tuple[str, ...]
    output: Path

    def __post_init__(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def restart(self) -> None:
        """As after its machine was lost: killed, and started again."""
        self._process.kill()
        self._process.wait()
        self.__post_init__()

    def end(self) -> None:
        _end(self._process)


@contextlib.contextmanager
def _named(configuration: Path) -> Iterator[None]:
    before = os.environ.get(SLURM_CONF)
    os.environ[SLURM_CONF] = str(configuration)
    try:
        yield
    finally:
        del os.environ[SLURM_CONF]
        if before is not None:
            os.environ[SLURM_CONF] = before


def _idle() -> int:
    """How many nodes are ready."""
    told = subprocess.run(["sinfo", "-N", "-h", "-t", "idle", "-o", "%N"], capture_output=True, text=True, check=False)
    return len(told.stdout.split())


def _await(has_come: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + _START_S
    while not has_come():
        if time.monotonic() > end:
            logs = (each.read_text(errors="replace")[-1500:] for each in (folder / "output", *folder.glob("*.log")))
            raise SystemExit("Slurm did not start:\n" + "\n".join(logs))
        time.sleep(0.2)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as asked:
        asked.bind(("", 0))
        port: int = asked.getsockname()[1]
        return port
