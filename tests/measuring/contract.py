"""Targets of some data in short, and a metric that is asked whether a model's outputs fit them."""

from __future__ import annotations

from typing import Any

import torch

from pytest_modelopt.measuring.protocol import KnownTargets
from pytest_modelopt.measuring.worker.calls.structure import tensors_in
from pytest_modelopt.measuring.worker.data.known_targets import TargetsSeen
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.measuring.worker.metrics.scorer_factory import make_metric
from pytest_modelopt.measuring.worker.source_loading import Loader
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import Carried


class Live(Loader):
    """Has objects as a test carries them."""

    def __init__(self, **objects: Any) -> None:
        self._objects = objects

    def get(self, source: Any, what: str) -> Any:
        return self._objects[source.key]


def known(*targets: Any, inputs: tuple[Any, ...] = ()) -> KnownTargets | None:
    """Of batches with these targets; the inputs have 3 numbers in each example unless others are given."""
    seen, first = TargetsSeen(), 0
    for index, each in enumerate(targets):
        given = inputs[index] if inputs else torch.zeros(len(each), 3)
        seen.add(Batch(given, each, first))
        first += len(each)
    return seen.known()


def misfit(
    metric: Any, outputs: Any, targets: KnownTargets | None, prepare: Any = None, examples: int | None = None
) -> str | None:
    """None where nothing is asked. The call has as many examples as the first tensor, unless others are given."""
    name = metric if isinstance(metric, str) else Carried("metric")
    direction = None if isinstance(getattr(metric, "higher_is_better", None), bool) else True
    spec = MetricSpec(name, prepare=None if prepare is None else Carried("prepare"), higher_is_better=direction)
    found = make_metric(spec, Live(metric=metric, prepare=prepare)).misfit
    assert targets is not None
    if examples is None:
        examples = len(next(tensors_in(outputs)))
    return None if found is None else found(outputs, targets, examples)
