"""One variant in its worker: every operation runs under the variant's own conditions, whatever the user's code does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.results.metric import MetricSpec

SOURCE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

INPUTS = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(300) % 2
threads = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, x):
        threads.append(torch.get_num_threads())
        return self.layer(x)

def model():
    torch.set_num_threads(2)
    return Net().eval()

def tensors():
    return INPUTS, TARGETS

class Once(IterableDataset):
    def __init__(self):
        self.stream = iter([(INPUTS[i], TARGETS[i]) for i in range(300)])
    def __iter__(self):
        return self.stream

def stream():
    return Once()

def generator():
    return ((INPUTS[i:i + 50], TARGETS[i:i + 50]) for i in range(0, 300, 50))

def shuffled():
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=32, shuffle=True)

class Answer:
    def __init__(self, logits):
        self.logits = logits

class NotANumber(Net):
    def forward(self, x):
        return Answer(self.layer(x) * float("nan"))

def not_a_number():
    return NotANumber().eval()

class Cache(Net):
    def __init__(self):
        super().__init__()
        self.seen = []
    def forward(self, x):
        self.seen.append(x.clone())
        return self.layer(x)

def growing():
    return Cache().eval()

class Lazy(Net):
    table = None
    def forward(self, x):
        if self.table is None:
            self.table = torch.cos(torch.arange(4.0))
        return self.layer(x * self.table)

def lazy():
    return Lazy().eval()
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """A loaded Bench in this process, with a fresh copy of the user's module."""
    import sys

    (tmp_path / "bench_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.get_num_threads()

    def make(model: str = "model", data: str = "tensors", recipe: str | None = None) -> Bench:
        variant = Variant(
            f"bench_user:{model}",
            parse(recipe) if recipe else None,
            f"bench_user:{data}",
            None,
            None,
            MetricSpec(),
            (str(tmp_path),),
            str(tmp_path),
        )
        made = Bench(variant)
        made.load()
        if recipe is not None:
            made.optimize()
        return made

    yield make
    sys.modules.pop("bench_user", None)
    torch.set_num_threads(before)


def test_threads_are_in_force_whatever_the_factory_sets(bench: Callable[..., Bench]) -> None:
    import sys

    made = bench()
    torch.set_num_threads(2)
    made.memory()
    torch.set_num_threads(2)
    made.score()
    torch.set_num_threads(2)
    made.prepare_timing()
    made.block()
    user: Any = sys.modules["bench_user"]
    assert set(user.threads) == {1}


@pytest.mark.parametrize("data", ["tensors", "stream", "generator", "shuffled"])
def test_every_example_is_scored_though_the_first_were_looked_at(bench: Callable[..., Bench], data: str) -> None:
    assert bench(data=data).score().examples == 300


def test_a_shuffled_loader_shows_both_variants_the_same_order(bench: Callable[..., Bench]) -> None:
    fingerprints = {bench(data="shuffled", recipe=r).score().data_fingerprint for r in (None, "int8-dynamic")}
    assert len(fingerprints) == 1


def test_nan_logits_inside_an_object_are_refused(bench: Callable[..., Bench]) -> None:
    with pytest.raises(VariantError, match="not finite"):
        bench("not_a_number").score()


def test_a_model_that_keeps_more_after_each_call_has_no_memory_figure(bench: Callable[..., Bench]) -> None:
    with pytest.raises(VariantError, match=r"keeps \+16 bytes more after each call"):
        bench("growing").memory()


def test_what_a_model_caches_in_its_first_call_does_not_break_a_recipe(bench: Callable[..., Bench]) -> None:
    made = bench("lazy", recipe="prune-unstructured(ratio=0.5)")
    x = torch.ones(1, 4, requires_grad=True)
    made.model(x).sum().backward()
    assert x.grad is not None


def test_both_workers_can_be_put_on_one_core(bench: Callable[..., Bench]) -> None:
    import os

    allowed = os.sched_getaffinity(0)
    try:
        bench().pin([min(allowed)])
        assert os.sched_getaffinity(0) == {min(allowed)}
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), allowed)
