"""What `other_plugins.py` runs: a project with a gate, and each plugin as somebody uses it, with tests of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHOP = """
import torch
from torch import nn

def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).eval()

def seen_by_workers_only():
    return classifier()

def data():
    inputs = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, classifier()(inputs).argmax(1)

def raises():
    raise FileNotFoundError("weights/best.pt")
"""
BUDGETS = """
version: 1
models:
  classifier:
    factory: shop:seen_by_workers_only
    data: shop:data
    recipes:
      int8-dynamic: {max_memory: 1 MB, min_speedup: 0.01x}
      low-rank(ratio=0.5): {max_size: 1 kB, min_speedup: 0.01x}
  broken:
    factory: shop:raises
    data: shop:data
    recipes:
      int8-dynamic:
"""
TESTS = """
import pytest
import shop

@pytest.mark.model_budget(max_size="1 kB")
def test_breaks(modelopt):
    modelopt("shop:classifier", "int8-dynamic", data="shop:data")

@pytest.mark.model_budget(max_size="1 MB")
def test_keeps(modelopt):
    modelopt("shop:classifier", "int8-dynamic", data="shop:data")

def test_variant(optimize):
    assert optimize(shop.classifier(), "int8-dynamic", data=shop.data()).load() is not None
"""
SAMPLE = """
def test_passes():
    pass

def test_fails():
    assert 1 == 2
"""
PROJECT = {"shop.py": SHOP, "budgets.yaml": BUDGETS, "test_gate.py": TESTS}
COVERAGE = "[run]\nsource = .\npatch = subprocess, _exit\n"


@dataclass(frozen=True)
class Use:
    """One plugin, as it is used: its distribution, the entry points that load it, and the arguments of each run."""

    package: str
    plugins: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    """Usually one; of several, the records are merged."""
    sample: str = SAMPLE
    """A file of tests that use the plugin and know nothing of ours."""
    ini: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    covers_workers: bool = False
    """Whether coverage.json must say that a function was run which only our workers call."""


KILLED = """
import os, signal

def test_passes():
    pass

def test_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)
"""
FLAKY = """
from pathlib import Path

def test_passes_when_it_is_run_again():
    file = Path(__file__).with_name("tried")
    tried = file.exists()
    file.touch()
    assert tried

def test_fails():
    assert 1 == 2
"""
RANDOM = """
import random

def test_one():
    assert random.random() >= 0

def test_two():
    assert random.random() < 0
"""
HANGS = """
import time
import pytest

@pytest.mark.timeout(1)
def test_hangs():
    time.sleep(60)

def test_passes():
    pass
"""
REPEATED = """
import pytest

@pytest.mark.repeat(3)
def test_three_times():
    pass
"""
ASYNC = """
import asyncio
import pytest

@pytest.mark.asyncio
async def test_waits():
    await asyncio.sleep(0)

@pytest.mark.asyncio
async def test_fails():
    await asyncio.sleep(0)
    assert 1 == 2
"""
SUBTESTS = """
def test_passes(subtests):
    with subtests.test("one"):
        pass

def test_parts(subtests):
    for number in range(3):
        with subtests.test(number=number):
            assert number != 1
"""
HTML = """
def test_says_something(extras):
    from pytest_html import extras as more
    extras.append(more.text("seen"))
"""
BENCHMARK = """
def test_is_timed(benchmark):
    assert benchmark.pedantic(sum, ([1, 2],), rounds=3) == 3
"""
MEMRAY = """
import pytest

@pytest.mark.limit_memory("100 MB")
def test_takes_little():
    assert bytearray(1000)

@pytest.mark.limit_memory("1 MB")
def test_takes_much():
    assert bytearray(50_000_000)
"""
TORCH = """
import torch

def test_model(request):
    assert torch.nn.Linear(2, 3)(torch.zeros(1, 2)).shape == (1, 3)
"""
FORKED = """
import os
import pytest

@pytest.mark.forked
def test_dies():
    os._exit(3)

def test_passes():
    pass
"""
XDIST = ("xdist", "xdist.looponfail")
USES = (
    *(
        Use("pytest-xdist", XDIST, (("-n", "2", "--dist", mode),))
        for mode in ("load", "loadscope", "loadfile", "loadgroup", "worksteal")
    ),
    Use("pytest-xdist", XDIST, (("--dist", "each", "--tx", "2*popen"),)),
    Use("pytest-xdist", XDIST, (("-n", "8", "--maxprocesses", "1"),)),
    Use("pytest-xdist", XDIST, (("-n", "2", "--max-worker-restart", "2"),), KILLED),
    Use(
        "pytest-cov",
        ("pytest_cov",),
        (("--cov", "--cov-report", "json"),),
        files={".coveragerc": COVERAGE},
        covers_workers=True,
    ),
    Use("pytest-rerunfailures", ("rerunfailures",), (("--reruns", "1"),), FLAKY),
    Use("pytest-randomly", ("randomly",), (("--randomly-seed", "7"),), RANDOM),
    Use("pytest-timeout", ("timeout",), (("--timeout", "300"),), HANGS),
    Use("pytest-repeat", ("repeat",), (("--count", "2"),), REPEATED),
    Use("pytest-split", ("pytest-split",), tuple(("--splits", "2", "--group", group) for group in "12")),
    Use("pytest-asyncio", ("asyncio",), ((),), ASYNC, "asyncio_default_fixture_loop_scope = function\n"),
    Use("pytest-subtests", ("subtests",), ((),), SUBTESTS),
    Use("pytest-html", ("metadata", "html", "html_fixtures"), (("--html", "page.html"),), HTML),
    Use("pytest-benchmark", ("benchmark",), ((),), BENCHMARK),
    Use("pytest-memray", ("memray",), (("--memray",),), MEMRAY),
    Use("pytest-torch", ("pytest_torch",), ((),), TORCH),
    Use("pytest-forked", ("pytest_forked",), (("--forked",),), FORKED),
)
"""The runs of the table, one row each."""
