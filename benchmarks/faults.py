"""Faults injected into runs of several cases, and the cases beside the faulty ones that were lost.

Each kind of fault is one run of pytest: a model for each place where the fault can happen (import, factory, forward
pass, data, metric), and a healthy model after each of them. A healthy case that was not measured, or is not in the
record, is lost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_modelopt.record.json import RecordError, read

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
}
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
import ctypes, glob, os, resource, shutil, signal, subprocess, sys, tempfile, time
import healthy

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


def write_project(folder: Path, kind: str, places: tuple[str, ...]) -> None:
    """Faulty and healthy models in turns."""
    (folder / "healthy.py").write_text(HEALTHY, encoding="utf-8")
    models = CASE.format(name="healthy-first", module="healthy")
    for place in places:
        source = FAULTY.format(fault=KINDS[kind], place=place)
        (folder / f"faulty_{place}.py").write_text(source, encoding="utf-8")
        models += CASE.format(name=f"faulty-{place}", module=f"faulty_{place}")
        models += CASE.format(name=f"healthy-after-{place}", module="healthy")
    (folder / "budgets.yaml").write_text(f"version: 1\nmodels:\n{models}", encoding="utf-8")


def run(kind: str, places: tuple[str, ...], *arguments: str, limit_s: float = 900) -> tuple[list[str], list[str]]:
    """The healthy cases that were lost, and what was said of each faulty one."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder, temporary = Path(name) / "project", Path(name) / "tmp"
        folder.mkdir()
        temporary.mkdir()
        write_project(folder, kind, places)
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
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        healthy = {"healthy-first", *(f"healthy-after-{place}" for place in places)}
        try:
            record = read(folder / "report" / "record.json")
        except (OSError, RecordError):
            return sorted(healthy), ["no record"]
        passed = {case.model for case in record.cases if case.error is None and case.variant is not None}
        said = [
            f"{case.model}: {case.error.message if case.error else 'measured'}"
            for case in record.cases
            if case.model.startswith("faulty")
        ]
        return sorted(healthy - passed), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--verbose", action="store_true", help="what was said of each faulty case")
    options = parser.parse_args()
    faults = losses = 0
    for kind in options.kinds:
        start = time.monotonic()
        lost, said = run(kind, PLACES)
        faults += len(PLACES)
        losses += len(lost)
        print(f"{kind:28} {len(lost)} lost {' '.join(lost)} ({time.monotonic() - start:.0f} s)", flush=True)
        if options.verbose:
            print("".join(f"    {line}\n" for line in said), end="", flush=True)
    print(f"{faults} faults injected, {losses} cases lost beside the faulty ones")


if __name__ == "__main__":
    main()
