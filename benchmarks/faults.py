"""Faults injected into runs of several cases, and the cases beside the faulty ones that were lost.

Each kind of fault is one run of pytest: a model for each place where the fault can happen (import, factory, forward
pass, data, metric), and a healthy model after each of them. A healthy case that was not measured, or is not in the
record, is lost. A faulty case that is neither in error nor measured, a process that outlives the run and a file that
stays in the temporary folder are counted, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_modelopt.results.json import RecordError, read

KINDS = {
    "sigkill": "os.kill(os.getpid(), signal.SIGKILL)",
    "segmentation fault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "exit status 0": "os._exit(0)",
    "exit status 7": "os._exit(7)",
    "sys.exit": "sys.exit(3)",
    "exception": "raise ValueError('no weights')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "sleeping hang": "time.sleep(600)",
    "busy hang": "exec('while True: pass')",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "full pipe": "os.write(os.pipe()[1], bytes(2**20))",
    "memory limit": "resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20)); bytearray(2**28)",
    "deep recursion": "f = lambda: f(); f()",
    "crash of the stack": "sys.setrecursionlimit(10**9); f = lambda x: [f] and sorted([1], key=f); f(0)",
    "temporary folder vanishes": "remove('pytest-modelopt-*')",
    "TMPDIR vanishes": "shutil.rmtree(os.environ['TMPDIR'], ignore_errors=True)",
    "no streams": "sys.stdout = sys.stderr = None",
    "closed streams": "sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)",
    "closed files": "os.closerange(3, 1000)",
    "child outlives": "subprocess.Popen(['sleep', '600'], start_new_session=True); os._exit(1)",
    "fork that returns": "os.fork()",
    "fork server killed": "os.kill(os.getppid(), signal.SIGKILL)",
    "signals ignored": "[signal.signal(n, signal.SIG_IGN) for n in (2, 10, 12, 15, 17)]; time.sleep(600)",
    "alarm": "signal.alarm(1); time.sleep(600)",
    "group killed": "os.killpg(0, signal.SIGKILL)",
    "another program": "os.execvp('sleep', ['sleep', '600'])",
    "daemon": "os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(600))",
    "writes into all files": "[write(int(name)) for name in os.listdir('/proc/self/fd') if int(name) > 2]",
    "a gigabyte printed": "[os.write(1, bytes(2**20)) for _ in range(2**10)]",
    "file limit": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); open('written', 'w').write('x')",
    "no more files": "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); open(__file__)",
    "processor limit": "resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); exec('while True: pass')",
    "breakpoint": "breakpoint(); raise ValueError('after it')",
    "error without words": "raise type('Untold', (Exception,), {'__str__': lambda error: 1 / 0})",
    "error of ten megabytes": "raise ValueError('x' * 10**7)",
    "error that no pickle takes": "raise type('Bound', (Exception,), {'__reduce__': lambda error: 1 / 0})",
    "thread that stays": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "end that hangs": "multiprocessing.util.Finalize(None, time.sleep, (600,), exitpriority=1)",
    "__del__ that hangs": "sys.kept = type('Kept', (), {'__del__': lambda kept: time.sleep(600)})()",
    "folder that has gone": "os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())",
    "no environment": "os.environ.clear()",
    "no modules": "sys.modules.clear()",
    "no import path": "sys.path.clear()",
    "no sockets": "socket.socket = socket.socketpair = None",
    "no built-ins": "builtins.open = builtins.print = os.write = os.getpid = time.monotonic = None",
    "another start method": "multiprocessing.set_start_method('spawn', force=True)",
}
BEARABLE = {
    "temporary folder vanishes",
    "TMPDIR vanishes",
    "no streams",
    "closed streams",
    "closed files",
    "fork that returns",
    "fork server killed",
    "daemon",
    "a gigabyte printed",
    "thread that stays",
    "end that hangs",
    "__del__ that hangs",
    "folder that has gone",
    "no environment",
    "no modules",
    "no import path",
    "no sockets",
    "no built-ins",
    "another start method",
}
"""A model of which no more than this is wrong may be measured."""
PLACES = ("import", "factory", "forward", "data", "metric")
STEP_LIMIT_S = 15

HEALTHY = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()

def data():
    inputs = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model()(inputs).argmax(1)

def metric(outputs, targets):
    return float((outputs.argmax(1) == targets).float().mean())
metric.higher_is_better = True
"""
FAULTY = """
import builtins, ctypes, glob, multiprocessing.util, os, resource, shutil, signal, socket, subprocess, sys
import tempfile, threading, time
import healthy

def write(number):
    try:
        os.write(number, b"none" * 9)
    except OSError:
        pass

def remove(*patterns):
    for pattern in patterns:
        for folder in glob.glob(os.path.join(os.environ["TMPDIR"], pattern)):
            shutil.rmtree(folder)

def fault():
    {fault}

class Faulty(healthy.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = healthy.model()
    def forward(self, x):
        if {place!r} == "forward":
            fault()
        return self.body(x)

def model():
    if {place!r} == "factory":
        fault()
    return Faulty().eval()

def data():
    if {place!r} == "data":
        fault()
    return healthy.data()

def metric(outputs, targets):
    if {place!r} == "metric":
        fault()
    return healthy.metric(outputs, targets)
metric.higher_is_better = True

if {place!r} == "import":
    fault()
"""
CASE = """
  {name}:
    factory: {module}:model
    data: {module}:data
    metric: {module}:metric
    recipes:
      low-rank(ratio=0.5): {{max_size: 1 MB}}
"""


@dataclass(frozen=True)
class Fault:
    """One faulty model."""

    kind: str
    place: str

    @property
    def name(self) -> str:
        return f"faulty-{list(KINDS).index(self.kind)}-{self.place}"


def write_project(folder: Path, faults: Sequence[Fault]) -> None:
    """Faulty and healthy models in turns."""
    (folder / "healthy.py").write_text(HEALTHY, encoding="utf-8")
    models = CASE.format(name="healthy-first", module="healthy")
    for fault in faults:
        source, module = FAULTY.format(fault=KINDS[fault.kind], place=fault.place), fault.name.replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        models += CASE.format(name=fault.name, module=module)
        models += CASE.format(name=f"healthy-after-{fault.name}", module="healthy")
    (folder / "budgets.yaml").write_text(f"version: 1\nmodels:\n{models}", encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    lost: list[str]
    """Healthy cases that were not measured."""
    said: dict[str, str]
    """Of each faulty case: its error, or 'measured'."""
    unnoticed: list[str]
    """Faulty cases that are neither in error nor may be measured."""
    left: list[str]
    """Processes and files that outlived the run."""


def run(faults: Sequence[Fault], *arguments: str, limit_s: float = 900) -> Outcome:
    """One run of pytest with a faulty case for each fault, in this order."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder, temporary = Path(name) / "project", Path(name) / "tmp"
        folder.mkdir()
        temporary.mkdir()
        write_project(folder, faults)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--modelopt",
            "--modelopt-report",
            "report",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--modelopt-step-limit", f"{STEP_LIMIT_S}s", "--modelopt-time-limit", "1s", *arguments]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        with (Path(name) / "printed").open("w") as printed:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=printed)
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = list(processes_in(Path(name)).values())
        left += [file.name for file in temporary.glob("*") if not file.name.startswith("torchinductor_")]
        healthy = {"healthy-first", *(f"healthy-after-{fault.name}" for fault in faults)}
        try:
            record = read(folder / "report" / "record.json")
        except (OSError, RecordError):
            return Outcome(sorted(healthy), {}, [fault.name for fault in faults], left)
        measured = {case.model for case in record.cases if case.error is None and case.variant is not None}
        said = {
            case.model: case.error.message if case.error else "measured"
            for case in record.cases
            if case.model.startswith("faulty")
        }
        unnoticed = [
            fault.name
            for fault in faults
            if fault.name not in said or (said[fault.name] == "measured" and fault.kind not in BEARABLE)
        ]
        return Outcome(sorted(healthy - measured), said, unnoticed, left)


def processes_in(folder: Path, within_s: float = 10) -> dict[int, str]:
    """Number -> command line of the processes but this one whose working folder is in there, as that of all workers and
    of what they start. Some end a moment after the run."""
    deadline = time.monotonic() + within_s
    while (found := dict(_processes_in(folder))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes_in(folder: Path) -> Iterator[tuple[int, str]]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if int(process.name) != os.getpid() and (process / "cwd").readlink().is_relative_to(folder):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(process.name), command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--verbose", action="store_true", help="what was said of each faulty case")
    options = parser.parse_args()
    faults = lost = unnoticed = left = 0
    for kind in options.kinds:
        found = run([Fault(kind, place) for place in PLACES])
        faults, lost = faults + len(PLACES), lost + len(found.lost)
        unnoticed, left = unnoticed + len(found.unnoticed), left + len(found.left)
        in_error = sum(text != "measured" for text in found.said.values())
        print(f"{kind:28} {in_error} in error, {len(found.lost)} lost", *found.lost, flush=True)
        for what, names in (("unnoticed", found.unnoticed), ("left", found.left)):
            if names:
                print(f"    {what}: {', '.join(names)}", flush=True)
        if options.verbose:
            print("".join(f"    {name}: {text[:300]}\n" for name, text in found.said.items()), end="", flush=True)
    print(
        f"{faults} faults injected, {lost} cases lost beside the faulty ones, {unnoticed} faults unnoticed, {left} left"
    )


if __name__ == "__main__":
    main()
