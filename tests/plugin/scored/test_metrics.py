"""Tasks of every kind through the gate, their scores checked against torchmetrics and jiwer, which are called here.

Small models, trained in a moment: regression, several labels, tokens, and speech whose frames are decoded to text.
"""

from __future__ import annotations

from importlib import util
from pathlib import Path

import jiwer
import pytest
import torch
from torchmetrics import classification, detection, regression, text
from torchmetrics.functional.audio import signal_noise_ratio

from pytest_modelopt.results.case import Case
from pytest_modelopt.results.json import read
from tests.plugin import detection_task
from tests.plugin import metric_tasks as tasks

BUDGETS = """
version: 1
models:
  mae:
    factory: tasks:regression
    data: early:regression_data
    metric: torchmetrics.regression.MeanAbsoluteError
    recipes: {int8-dynamic: {max_accuracy_drop: 0.05, min_accuracy: 0.6}}
  f1:
    factory: tasks:labels
    data: tasks:labels_data
    metric:
      name: torchmetrics.classification.MultilabelF1Score
      arguments: {num_labels: 5, average: macro}
      activation: sigmoid
    recipes: {int8-dynamic: {max_accuracy_drop: 5 pp}}
  perplexity:
    factory: tasks:tokens
    data: tasks:tokens_data
    metric: {name: torchmetrics.text.Perplexity, arguments: {ignore_index: -100}}
    recipes: {int8-dynamic: {max_accuracy_drop: 0.5}}
  wer:
    factory: tasks:speech
    data: tasks:speech_data
    metric: {name: torchmetrics.text.WordErrorRate, prepare: tasks:decoded}
    recipes: {int8-dynamic: {max_accuracy_drop: 0.05}}
  distance:
    factory: tasks:regression
    data: tasks:regression_data
    metric: {name: "tasks:column", per_example: true}
    recipes: {int8-dynamic: {max_accuracy_drop: 0.05}}
  sqnr:
    factory: tasks:labels
    data: tasks:labels_data
    metric: sqnr
    recipes: {int8-dynamic: {min_accuracy: 25}}
  cosine:
    factory: tasks:labels
    data: tasks:labels_data
    metric: cosine
    recipes: {int8-dynamic: {max_accuracy_drop: 0.001}}
  agreement:
    factory: tasks:labels
    data: tasks:labels_data
    metric: agreement
    recipes: {int8-dynamic: {max_accuracy_drop: 5 pp, max_flips: 5%}}
  detection:
    factory: detection:detector
    data: detection:images
    metric: detection:average_precision
    recipes: {int8-dynamic: {max_accuracy_drop: 0.1, min_accuracy: 0.4, max_memory: 1 MB}}
"""

EARLY = """
import sys
import tasks

def regression_data():
    assert "torchmetrics" in sys.modules, "each worker that scores imports it for itself"
    return tasks.regression_data()
"""
VARIANTS = """
import detection
import tasks
import torch

def test_variants(optimize):
    for name, data in tasks.DATA.items():
        model = optimize(f"tasks:{name}", "int8-dynamic", data=f"tasks:{name}_data").load()
        with torch.inference_mode():
            outputs = [model(batch) for batch in data()[0].split(64)]
        torch.save(torch.cat(outputs), f"{name}-int8.pt")
    detector = optimize("detection:detector", "int8-dynamic", data="detection:images").load()
    with torch.inference_mode():
        torch.save(detector(detection.images()[0]), "detection-int8.pt")
"""


def outputs_of(side: str) -> dict[str, torch.Tensor]:
    """In batches of 64, as the gate takes them: dynamic quantization scales its activations by batch."""
    if side == "variant":
        return {name: torch.load(f"{name}-int8.pt", weights_only=True) for name in tasks.DATA}
    with torch.inference_mode():
        return {
            name: torch.cat([tasks.load(name)(batch) for batch in torch.split(data()[0], 64)])
            for name, data in tasks.DATA.items()
        }


def test_every_task_has_the_score_that_its_library_computes(tasks_project: pytest.Pytester) -> None:
    (tasks_project.path / "budgets.yaml").write_text(BUDGETS, encoding="utf-8")
    source = Path(detection_task.__file__).read_text(encoding="utf-8")
    tasks_project.makepyfile(test_variants=VARIANTS, early=EARLY, detection=source)
    result = tasks_project.runpytest("--modelopt", "--modelopt-report=report", "--modelopt-time-limit=1 ms")
    result.assert_outcomes(passed=10)
    cases = {case.model: case for case in read(tasks_project.path / "report/record.json").cases}
    for side in ("original", "variant"):
        expected = expectations(outputs_of(side))
        found = {name: score_of(cases[name], side) for name in expected}
        assert found == pytest.approx(expected, rel=1e-5)
    _check_what_stands_beside_the_scores(cases)
    _check_metrics_without_labels(cases)
    _check_detection(cases["detection"])


def score_of(case: Case, side: str) -> float | None:
    measured = case.reference if side == "original" else case.variant
    assert measured is not None
    return measured.score


def expectations(outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """What torchmetrics and jiwer give, called on all outputs at once."""
    targets = {name: data()[1] for name, data in tasks.DATA.items()}
    f1 = classification.MultilabelF1Score(num_labels=5, average="macro")
    hypotheses, references = tasks.decoded(outputs["speech"], targets["speech"])
    mae = regression.MeanAbsoluteError()(outputs["regression"], targets["regression"])
    return {
        "mae": float(mae),
        "distance": float(mae),
        "f1": float(f1(outputs["labels"].sigmoid(), targets["labels"])),
        "perplexity": float(text.Perplexity(ignore_index=-100)(outputs["tokens"], targets["tokens"])),
        "wer": jiwer.wer(references, hypotheses),
    }


def _check_what_stands_beside_the_scores(cases: dict[str, Case]) -> None:
    assert {name: case.metric for name, case in cases.items() if name in ("mae", "f1", "wer", "distance", "sqnr")} == {
        "mae": "MeanAbsoluteError",
        "f1": "MultilabelF1Score(average=macro, num_labels=5)",
        "wer": "WordErrorRate",
        "distance": "tasks:column",
        "sqnr": "sqnr",
    }
    assert [cases[name].higher_is_better for name in ("mae", "f1", "perplexity", "wer")] == [False, True, False, False]
    for name in ("mae", "perplexity", "distance", "cosine"):
        case = cases[name]
        assert case.interval is not None, case.no_interval
        assert case.interval.low <= (case.drop or 0.0) <= case.interval.high
    assert 0 < (score_of(cases["wer"], "original") or 0) < 0.8, (
        "a speech task where nothing or all is wrong shows nothing"
    )
    assert cases["mae"].agreement is None


def _check_metrics_without_labels(cases: dict[str, Case]) -> None:
    before, after = outputs_of("original")["labels"], outputs_of("variant")["labels"]
    ratio = signal_noise_ratio(after.flatten().double(), before.flatten().double())
    assert score_of(cases["sqnr"], "variant") == pytest.approx(float(ratio), rel=1e-6)
    assert score_of(cases["sqnr"], "original") is None
    assert cases["sqnr"].reference is not None
    assert "does not differ from itself" in cases["sqnr"].reference.unmeasured["score"]
    assert "nothing can drop" in cases["sqnr"].no_interval
    each = torch.nn.functional.cosine_similarity(before.double(), after.double())
    assert score_of(cases["cosine"], "variant") == pytest.approx(float(each.mean()), abs=1e-9)
    assert score_of(cases["cosine"], "original") == 1.0
    same = int((before.argmax(1) == after.argmax(1)).sum())
    agreement = cases["agreement"].agreement
    assert agreement is not None
    assert (agreement.flips, agreement.right_to_wrong, agreement.wrong_to_right) == (200 - same, 200 - same, 0)
    assert score_of(cases["agreement"], "variant") == same / 200


def _check_detection(case: Case) -> None:
    """Lists of images of different sizes in, as many boxes out as there are; each image is an example."""
    images, targets = detection_task.images()
    model = detection_task.detector()
    with torch.inference_mode():
        of_original = model(images)
    of_variant = torch.load("detection-int8.pt", weights_only=True)
    found = [score_of(case, side) for side in ("original", "variant")]
    assert found == pytest.approx([average_precision(of_original, targets), average_precision(of_variant, targets)])
    assert len({image.shape for image in images}) > 2
    assert len({len(each["boxes"]) for each in of_original}) > 2
    assert case.reference is not None
    assert case.reference.examples == len(images)
    assert case.input_shapes == (tuple(images[0].shape),)


def average_precision(outputs: list[detection_task.Found], targets: list[detection_task.Found]) -> float:
    """That of torchmetrics, where its packages are installed, which must agree with the project's own."""
    found = detection_task.average_precision(outputs, targets)
    if util.find_spec("torchvision") and util.find_spec("pycocotools"):
        metric = detection.MeanAveragePrecision(iou_thresholds=[0.5])
        metric.update(outputs, targets)
        assert float(metric.compute()["map"]) == pytest.approx(found, abs=1e-6)
    return found


LIVE = """
import jiwer
import pytest
import torch
import torchmetrics
from tasks import DATA, decoded, labels_data, load, regression_data

def outputs(name):
    with torch.inference_mode():
        return torch.cat([load(name)(batch) for batch in DATA[name]()[0].split(64)])

def test_a_live_instance_is_reset(modelopt):
    metric = torchmetrics.regression.MeanAbsoluteError()
    metric.update(torch.ones(3), torch.zeros(3))
    result = modelopt("tasks:regression", "int8-dynamic", data=regression_data(), metric=metric)
    expected = torchmetrics.regression.MeanAbsoluteError()(outputs("regression"), regression_data()[1])
    assert result.original.score == pytest.approx(float(expected), rel=1e-5)
    assert result.case.metric == "MeanAbsoluteError"

def test_live_parts_of_a_mapping(modelopt):
    def words(outputs, targets):
        return decoded(outputs, targets)
    metric = {"name": torchmetrics.text.WordErrorRate, "prepare": words}
    result = modelopt("tasks:speech", "int8-dynamic", data="tasks:speech_data", metric=metric)
    heard, said = decoded(outputs("speech"), DATA["speech"]()[1])
    assert result.original.score == pytest.approx(jiwer.wer(said, heard))

def test_one_value_for_each_example(modelopt):
    def distance(outputs, targets):
        return (outputs - targets).abs().mean(1)
    metric = {"name": distance, "per_example": True, "higher_is_better": False}
    result = modelopt("tasks:regression", "int8-dynamic", data=regression_data(), metric=metric)
    assert result.case.interval is not None
    assert result.case.metric.startswith("test_live:")

def test_top_3(modelopt):
    inputs, labels = labels_data()
    result = modelopt("tasks:labels", "int8-dynamic", data=(inputs, labels.argmax(1)), metric="top-3")
    assert result.case.metric == "top-3"
    assert result.agreement is not None

def test_wrong(modelopt):
    modelopt("tasks:labels", "int8-dynamic", data=labels_data(), metric={"name": "top3", "activtion": "sigmoid"})
"""


def test_metrics_of_a_test(tasks_project: pytest.Pytester) -> None:
    tasks_project.makepyfile(test_live=LIVE)
    result = tasks_project.runpytest("--modelopt", "--modelopt-time-limit=1 ms", "test_live.py")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["*metric: 'top3' is not a metric*did you mean 'top-3'?; metric: unknown key 'activtion'; did you mean*"]
    )
