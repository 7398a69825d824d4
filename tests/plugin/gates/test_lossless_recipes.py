"""Recipes that keep the numbers, from budget to verdict: they change no answer, and compiled models start again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_modelopt.measuring.controller.launches import start_again
from pytest_modelopt.measuring.controller.worker_context import Measured, StepLimits, WorkerContext
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker import main  # noqa: F401 -- pytester forgets what an inner run imported, and it is pickled
from pytest_modelopt.optimizing.expression import parse
from pytest_modelopt.plugin.progress import Silent
from pytest_modelopt.results.json import read
from pytest_modelopt.results.metric import MetricSpec
from tests.plugin.small_project import one_case

Project = Callable[..., pytest.Pytester]


IMAGES = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(64, 5)).eval()
    nn.init.normal_(model[1].running_mean)
    return model

def data():
    inputs = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model()(inputs).argmax(1)
"""


def test_folded_and_channels_last_convolutions_answer_as_the_original(project: Project) -> None:
    limits = "{max_flips: 0%, min_coverage: 10%, min_speedup: 0.001x}"
    recipe = "fold-batchnorm + channels-last"
    pytester = project(one_case(limits, recipe=recipe, factory="images:model", data="images:data"))
    pytester.makepyfile(images=IMAGES)
    pytester.runpytest("--modelopt", "--modelopt-report=report").assert_outcomes(passed=1)
    (case,) = read(Path("report/record.json")).cases
    assert case.coverage is not None
    assert {layer.name for layer in case.coverage.layers if layer.changed_bytes} == {"0", "1", "3"}
    assert case.agreement is not None
    assert (case.agreement.flips, case.agreement.examples) == (0, 100)


def test_a_compiled_model_is_timed_and_scored(project: Project) -> None:
    limits = "{max_flips: 0%, max_memory: 1 MB, min_speedup: 0.001x, min_coverage: 100%}"
    result = project(one_case(limits, recipe="compile")).runpytest("--modelopt", "--modelopt-report=report")
    result.assert_outcomes(passed=1)
    (case,) = read(Path("report/record.json")).cases
    assert case.variant is not None
    assert not case.variant.unmeasured
    assert case.coverage is not None
    assert any(note.startswith("compiled into 1 graph") for step in case.coverage.steps for note in step.notes)
    assert case.agreement is not None
    assert (case.agreement.flips, case.agreement.examples) == (0, 200)


def test_another_launch_of_a_compiled_model_starts_from_the_saved_one(tmp_path: Path) -> None:
    (tmp_path / "images.py").write_text(IMAGES, encoding="utf-8")
    variant = Variant(
        "images:model", parse("compile"), "images:data", None, None, MetricSpec(), (str(tmp_path),), str(tmp_path)
    )
    context = WorkerContext(StepLimits(time_limit_s=1, step_limit_s=300), Silent())
    measured = Measured(variant)
    try:
        context.start(measured)
        for operation in ("load", "optimize"):
            context.request(measured.worker, operation)
        start_again(context, measured)  # checks that the answers are the same, else it would make it anew
        assert measured.saved is not None
        assert measured.saved.model is not None
        assert measured.saved.model.is_file()
    finally:
        context.end(measured)
        context.close()
