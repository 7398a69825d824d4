"""What a worker has started ends with it, however it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.process import Worker, WorkerFailed
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.results.metric import MetricSpec
from tests.measuring.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")

SOURCE = """
import os, signal, subprocess, time
from pathlib import Path
import torch
from torch import nn

def start(**options):
    child = subprocess.Popen(["sleep", "600"], **options)
    Path(__file__).with_name("child").write_text(str(child.pid))

def inputs():
    return torch.zeros(1, 4)

def stays():
    start()
    return nn.Linear(4, 3).eval()

def stays_in_its_own_session():
    start(start_new_session=True)
    return nn.Linear(4, 3).eval()

def daemon():
    # Of another session and another parent; of its environment the kernel shows what the fork server began with.
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(__file__).with_name("child").write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not Path(__file__).with_name("child").exists():
        time.sleep(0.01)
    return nn.Linear(4, 3).eval()

def without_environment():
    start(start_new_session=True, env={})
    return nn.Linear(4, 3).eval()

def dies_beside_a_fork():
    daemon()
    os._exit(1)

def ends_the_server_and_hangs():
    os.kill(os.getppid(), signal.SIGKILL)
    Path(__file__).with_name("child").write_text(str(os.getpid()))
    time.sleep(600)

def dies():
    start()
    os._exit(1)

def dies_beside_a_daemon():
    start(start_new_session=True)
    os._exit(1)

class Hangs(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options
    def forward(self, x):
        if Path(__file__).with_name("hang").exists():
            start(**self.options)
            time.sleep(600)
        return x

def hangs():
    return Hangs(start_new_session=True).eval()

def hangs_beside_its_child():
    return Hangs().eval()
"""
NAMED = "; it left 1 process running, ended now: `sleep 600`"


def worker_of(folder: Path, factory: str) -> Worker:
    (folder / "starting.py").write_text(SOURCE, encoding="utf-8")
    model, inputs, paths = f"starting:{factory}", "starting:inputs", (str(folder),)
    return Worker(Variant(model, None, None, None, inputs, MetricSpec(), paths, paths[0]), folder, "w")


def assert_ends(folder: Path) -> None:
    child, deadline = int((folder / "child").read_text()), time.monotonic() + 20
    while is_running(child):
        assert time.monotonic() < deadline, "it outlived its worker"
        time.sleep(0.05)


@pytest.mark.parametrize("factory", ["stays", "stays_in_its_own_session", "daemon", "without_environment"])
def test_of_a_worker_that_is_closed(tmp_path: Path, factory: str) -> None:
    worker = worker_of(tmp_path, factory)
    worker.request("load", limit_s=60)
    assert is_running(int((tmp_path / "child").read_text()))
    worker.close()
    assert_ends(tmp_path)


@pytest.mark.parametrize("factory", ["dies", "dies_beside_a_daemon"])
def test_of_a_worker_that_dies_and_it_is_named(tmp_path: Path, factory: str) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker_of(tmp_path, factory).request("load", limit_s=60)
    assert caught.value.message == f"the worker process died during `load`: exit status 1{NAMED}"
    assert_ends(tmp_path)


def test_of_a_daemon_that_is_only_a_fork_and_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker_of(tmp_path, "dies_beside_a_fork").request("load", limit_s=60)
    assert caught.value.message.endswith("; it left 1 process running, ended now: `a fork of the worker`")
    assert_ends(tmp_path)


def test_of_a_worker_whose_fork_server_has_ended_before_it(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker_of(tmp_path, "ends_the_server_and_hangs").request("load", limit_s=60)
    assert "(multiprocessing's fork server) was killed meanwhile" in caught.value.message
    assert "it left" not in caught.value.message, "a worker is not what a worker left"
    assert_ends(tmp_path)


@pytest.mark.parametrize("factory", ["hangs", "hangs_beside_its_child"])
def test_of_a_worker_that_hangs_and_it_is_named(tmp_path: Path, factory: str) -> None:
    worker = worker_of(tmp_path, factory)
    worker.request("load", limit_s=60)  # not within the limit, which is to pass when the child has been started
    (tmp_path / "hang").touch()
    with pytest.raises(WorkerFailed) as caught:
        worker.request("memory", limit_s=5)
    assert caught.value.message.endswith(f"and was ended{NAMED}")
    assert_ends(tmp_path)
