"""From what is stated to a metric: its name in the record, its direction, and what does not fit together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics

from pytest_modelopt.measuring.carried_objects import carry
from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.variant import Variant
from pytest_modelopt.measuring.worker.metrics.agreement import Sqnr
from pytest_modelopt.measuring.worker.metrics.classification import Classification
from pytest_modelopt.measuring.worker.metrics.functions import PerExample, WholeSet
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepared
from pytest_modelopt.measuring.worker.metrics.scorer_factory import Metric, make_metric
from pytest_modelopt.measuring.worker.metrics.torchmetrics import ClassMetric
from pytest_modelopt.measuring.worker.source_loading import Loader
from pytest_modelopt.results.metric import MetricSpec
from pytest_modelopt.results.source import Carried
from tests.measuring.answering import answer

SOURCE = """
import torch
import torchmetrics
from torchmetrics.regression import MeanAbsoluteError

def silent(outputs, targets):
    return (outputs - targets).abs().mean()

def error(outputs, targets):
    return (outputs - targets).abs().mean()
error.higher_is_better = False

def each(outputs, targets):
    return (outputs - targets).abs()
each.higher_is_better = False
each.per_example = True

class Shifted(MeanAbsoluteError):
    def __init__(self, by=0.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by
    def update(self, preds, target):
        super().update(preds + self.by, target)

class NotOfTheirs:
    pass

used = MeanAbsoluteError()
used.update(torch.ones(3), torch.zeros(3))

def first(outputs, targets):
    return outputs[:, 0], targets
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Metric]:
    """A metric as a worker makes it: `metric_user` is the project's module; keyword arguments are carried objects."""
    (tmp_path / "metric_user.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "metric_user", raising=False)

    def make(spec: MetricSpec, **carried: Any) -> Metric:
        path = tmp_path / "carried.pt"
        if carried:
            carry(carried, path)
        variant = Variant("m:f", None, None, None, None, spec, (str(tmp_path),), str(tmp_path), carried_file=str(path))
        return make_metric(spec, Loader(variant))

    return make


def live(outputs: Any, targets: Any) -> Any:
    return (outputs - targets).abs().mean()


F1 = "torchmetrics.classification.MulticlassF1Score"
NAMES = [
    (MetricSpec(), "accuracy", True, Classification),
    (MetricSpec("top-5"), "top-5", True, Classification),
    (MetricSpec("sqnr"), "sqnr", True, Sqnr),
    (MetricSpec("torchmetrics.text.WordErrorRate"), "WordErrorRate", False, ClassMetric),
    (MetricSpec("torchmetrics.text:WordErrorRate"), "WordErrorRate", False, ClassMetric),
    (
        MetricSpec(F1, (("num_classes", 10), ("average", "macro"))),
        "MulticlassF1Score(average=macro, num_classes=10)",
        True,
        ClassMetric,
    ),
    (MetricSpec("metric_user:Shifted", (("by", 0.5),)), "metric_user:Shifted(by=0.5)", False, ClassMetric),
    (MetricSpec("metric_user.Shifted"), "metric_user.Shifted", False, ClassMetric),
    (MetricSpec("metric_user:error"), "metric_user:error", False, WholeSet),
    (MetricSpec("metric_user:each"), "metric_user:each", False, PerExample),
    (MetricSpec("metric_user:silent", higher_is_better=True), "metric_user:silent", True, WholeSet),
    (MetricSpec("metric_user:error", higher_is_better=False), "metric_user:error", False, WholeSet),
    (MetricSpec("metric_user:error", per_example=True), "metric_user:error", False, PerExample),
    (MetricSpec("metric_user:error", prepare="metric_user:first"), "metric_user:error", False, Prepared),
]


@pytest.mark.parametrize(("spec", "name", "higher", "scorer"), NAMES, ids=[name for _, name, _, _ in NAMES])
def test_what_is_stated_becomes_a_metric(
    made: Callable[..., Metric], spec: MetricSpec, name: str, higher: bool, scorer: type
) -> None:
    metric = made(spec)
    assert (metric.name, metric.higher_is_better) == (name, higher)
    assert isinstance(metric.scorer(), scorer)


def test_live_objects_are_called_by_what_they_are(made: Callable[..., Metric]) -> None:
    stated = MetricSpec(Carried("metric"), higher_is_better=False)
    assert made(stated, metric=live).name == f"{__name__}:live"
    instance = torchmetrics.classification.MulticlassF1Score(num_classes=3, average="macro")
    again = torchmetrics.classification.MulticlassF1Score(num_classes=3, average="micro")
    names = [made(MetricSpec(Carried("metric")), metric=metric).name for metric in (instance, again)]
    assert names[0] != names[1]
    assert all(name.startswith("MulticlassF1Score(") and "num_classes=3" in name for name in names)


def test_an_instance_starts_afresh_in_every_pass(made: Callable[..., Metric]) -> None:
    metric = made(MetricSpec("metric_user:used"))
    for _ in range(2):
        assert answer(torch.full((8,), 0.5), torch.zeros(8), metric.scorer()).score == 0.5


def test_arguments_reach_the_class(made: Callable[..., Metric]) -> None:
    metric = made(MetricSpec("metric_user:Shifted", (("by", 2),)))
    assert answer(torch.zeros(8), torch.zeros(8), metric.scorer()).score == 2.0


def test_prepare_comes_before_the_metric(made: Callable[..., Metric]) -> None:
    metric = made(MetricSpec("metric_user:error", prepare="metric_user:first"))
    assert answer(torch.tensor([[1.0, 9.0]] * 4), torch.zeros(4), metric.scorer()).score == 1.0


NOTHING = "does not say whether higher is better: add `higher_is_better: true` or `false` below `metric`, or set its"
WRONG = [
    (MetricSpec("metric_user:silent"), f"the metric `metric_user:silent` {NOTHING}"),
    (
        MetricSpec("metric_user:error", higher_is_better=True),
        "`higher_is_better: true` is stated, but the metric `metric_user:error` itself says False; remove one",
    ),
    (
        MetricSpec("torchmetrics.classification.BinaryConfusionMatrix"),
        f"the metric `BinaryConfusionMatrix` {NOTHING}",
    ),
    (MetricSpec("metric_user:error", (("x", 1),)), "`arguments` is for a class, and the metric `metric_user:error` is"),
    (MetricSpec("metric_user:error", activation="sigmoid"), "`activation` is for a class, and the metric `metric_user"),
    (
        MetricSpec("metric_user:Shifted", per_example=True),
        "`per_example` is for functions, and the metric `metric_user",
    ),
    (
        MetricSpec("metric_user:used", (("x", 1),)),
        "`arguments` are for a class, and the metric `metric_user:used` is",
    ),
    (
        MetricSpec("metric_user:NotOfTheirs"),
        "`metric_user:NotOfTheirs` is a class, but not one of torchmetrics: d",
    ),
    (MetricSpec("torchmetrics.text.WordErorRate"), "has no `WordErorRate`; did you mean `WordErrorRate`?"),
    (MetricSpec("torchmetrics.txt.WordErrorRate"), "module `torchmetrics.txt` cannot be imported"),
    (
        MetricSpec(F1, (("classes", 3),)),
        "cannot be made: TypeError: MulticlassF1Score.__init__() ",
    ),
    (MetricSpec(F1), "(`arguments`: none)"),
    (
        MetricSpec("torchmetrics.detection.MeanAveragePrecision"),
        "MeanAveragePrecision` needs torchvision, without which torchmetrics leaves it out: run `pip install",
    ),
    (
        MetricSpec("torchmetrics.detection.mean_ap.MeanAveragePrecision"),
        "MeanAveragePrecision` needs a package that is not installed: `MAP` metric requires that `pycocotools`",
    ),
    (MetricSpec("metric_user:no"), "metric `metric_user:no`: `metric_user` has no `no`"),
    (MetricSpec("metric_user:error", prepare="metric_user:frist"), "prepare `metric_user:frist`: `metric_user` has no"),
]


@pytest.mark.parametrize(("spec", "told"), WRONG, ids=[told[:50] for _, told in WRONG])
def test_what_does_not_fit_together_is_told_before_anything_is_scored(
    made: Callable[..., Metric], spec: MetricSpec, told: str
) -> None:
    with pytest.raises(VariantError) as refusal:
        made(spec)
    assert told in str(refusal.value)


def test_without_torchmetrics_the_error_says_what_to_install(
    made: Callable[..., Metric], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(VariantError, match="needs torchmetrics") as refusal:
        made(MetricSpec("torchmetrics.text.WordErrorRate"))
    assert 'run `pip install "pytest-modelopt[metrics]"`' in str(refusal.value)
    assert made(MetricSpec("top-3")).name == "top-3"
