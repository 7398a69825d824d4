"""What a worker has started ends with it, however it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pytest_modelopt.measure.process import Worker, WorkerFailed
from pytest_modelopt.measure.variant import Variant
from pytest_modelopt.metrics import MetricSpec
from tests.measure.test_process import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")

SOURCE = """
import os, subprocess, time
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

def dies():
    start()
    os._exit(1)

def dies_beside_a_daemon():
    start(start_new_session=True)
    os._exit(1)

def hangs():
    start(start_new_session=True)
    time.sleep(600)
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


@pytest.mark.parametrize("factory", ["stays", "stays_in_its_own_session"])
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


def test_of_a_worker_that_hangs_and_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed) as caught:
        worker_of(tmp_path, "hangs").request("load", limit_s=5)
    assert caught.value.message.endswith(f"and was ended{NAMED}")
    assert_ends(tmp_path)
