"""A variant's bench with metrics of every kind: what one worker leaves, and what another one makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch

from pytest_modelopt.measuring.controller.worker_context import Measured, StepLimits, WorkerContext
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.bench import Bench
from pytest_modelopt.measuring.worker.files import size
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.answers import Interval
from pytest_modelopt.results.metric import MetricSpec

SOURCE = """
import torch
from torch import nn

INPUTS = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval()

def data():
    return INPUTS, TARGETS

def distance(outputs, targets):
    return (outputs - targets).abs().mean(1)
distance.higher_is_better = False
distance.per_example = True

def total(outputs, targets):
    return (outputs - targets).abs().mean()
total.higher_is_better = False
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Makes a loaded Bench in this process."""
    (tmp_path / "scored_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    threads = torch.get_num_threads()

    def make(metric: MetricSpec, recipe: str | None = None) -> Bench:
        folder, steps = str(tmp_path), parse(recipe) if recipe else None
        variant = Variant("scored_user:model", steps, "scored_user:data", None, None, metric, (folder,), folder)
        made = Bench(variant)
        made.load()
        if recipe is not None:
            made.optimize()
        return made

    yield make
    sys.modules.pop("scored_user", None)
    torch.set_num_threads(threads)


def test_the_interval_is_of_the_drop_between_two_workers(bench: Callable[..., Bench]) -> None:
    original, variant = (
        bench(MetricSpec("scored_user:distance")),
        bench(MetricSpec("scored_user:distance"), "int8-dynamic"),
    )
    before, after = original.score(), variant.score()
    assert before.summands is not None
    assert after.summands is not None
    found = variant.interval(before.summands, after.summands, after.width)
    assert isinstance(found, Interval)
    differences = numpy.array(after.summands) - numpy.array(before.summands)
    error = differences.std(ddof=1) / 300**0.5
    assert found.low == pytest.approx(differences.mean() - 1.6449 * error, abs=0.15 * error)
    assert found.high == pytest.approx(differences.mean() + 1.6449 * error, abs=0.15 * error)


def test_without_sums_there_is_no_interval(bench: Callable[..., Bench]) -> None:
    made = bench(MetricSpec("scored_user:total"))
    assert made.score().why_not["interval"].startswith("scored_user:total is a function of all examples at once")
    nothing = numpy.array([]).tolist()
    assert made.interval(nothing, nothing, 0) == "the metric scored_user:total is no function of sums over the examples"
    fresh = bench(MetricSpec("scored_user:distance"))
    assert "the worker that scored the variant has ended" in str(fresh.interval(nothing, nothing, 1))


@pytest.mark.parametrize("name", ["agreement", "cosine", "sqnr"])
def test_a_variant_is_held_against_what_the_original_left(
    bench: Callable[..., Bench], name: str, tmp_path: Path
) -> None:
    kept = str(tmp_path / "outputs.pt")
    original = bench(MetricSpec(name)).score(keep=kept)
    itself = bench(MetricSpec(name)).score(reference=kept)
    assert original.score == (None if name == "sqnr" else 1.0)
    assert itself.score == (300 if name == "sqnr" else 1.0)
    zeros = bench(MetricSpec(name), "prune-unstructured(ratio=0.9)").score(reference=kept)
    assert zeros.score is not None
    assert zeros.score < itself.score


def test_another_launch_makes_no_metric(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """torchmetrics takes seconds to import, and a launch only times: a metric that does not exist is not noticed."""
    inputs = tmp_path / "inputs.pt"
    size.save(torch.zeros(1, 64), inputs)
    folder = str(tmp_path)
    metric = MetricSpec("scored_user:no_such_metric")
    again = Bench(Variant("scored_user:model", None, "scored_user:data", None, None, metric, (folder,), folder))
    again.load(str(inputs), scores=False)
    assert again.answer().values


def test_the_outputs_of_another_worker_are_scored_as_its_own_metric_would(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """By a later launch, too, which was made without a metric."""
    path, folder = str(tmp_path / "outputs"), str(tmp_path)
    base = bench(MetricSpec("scored_user:distance"), "int8-dynamic")
    own = base.score()
    fingerprint = base.outputs(path)
    assert fingerprint == own.data_fingerprint
    inputs = tmp_path / "inputs.pt"
    size.save(torch.zeros(1, 64), inputs)
    metric = MetricSpec("scored_user:distance")
    later = Bench(Variant("scored_user:model", None, "scored_user:data", None, None, metric, (folder,), folder))
    later.load(str(inputs), scores=False)
    for head in (bench(metric), later):
        found = head.score_outputs(path, None)
        assert (found.score, found.summands, found.examples) == (own.score, own.summands, 300)
    assert later.metric_files() == (str(tmp_path / "scored_user.py"),)


def test_what_the_original_left_goes_with_it(tmp_path: Path) -> None:
    context = WorkerContext(StepLimits(1, 1), Silent())
    folder = str(tmp_path)
    measured = Measured(Variant("m:f", None, "m:d", None, None, MetricSpec("cosine"), (folder,), folder))
    measured.outputs = kept = context.new_file("outputs")
    kept.write_bytes(b"outputs")
    context.discard(measured)
    assert not kept.exists()
    context.close()
