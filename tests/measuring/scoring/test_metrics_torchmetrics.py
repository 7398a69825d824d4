"""Metrics of torchmetrics through the scoring loop, against the library called on all examples at once."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics import classification, regression, segmentation, text

from pytest_modelopt.measuring.protocol import Answers, VariantError
from pytest_modelopt.measuring.worker.metrics import torchmetrics as ours
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepared
from pytest_modelopt.measuring.worker.metrics.torchmetrics import ClassMetric, Sums
from tests.measuring.answering import answer

EXAMPLES = 150
GENERATOR = torch.Generator().manual_seed(0)
SLICES = [int(number) for number in torch.randint(3, (EXAMPLES,), generator=GENERATOR)]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def whole(most: int, *shape: int) -> torch.Tensor:
    return torch.randint(most, shape, generator=GENERATOR)


WORDS = ["the", "cat", "sat", "on", "mat", "dog"]
SAID = [" ".join(WORDS[int(i)] for i in whole(6, 4)) for _ in range(EXAMPLES)]
HEARD = [line.replace("cat", "hat") if index % 3 else line for index, line in enumerate(SAID)]
MEANS = normal(EXAMPLES)
MANY_MEANS = normal(EXAMPLES, 3)
NOISY_MEANS = MANY_MEANS + 0.5 * normal(EXAMPLES, 3)
TOKENS = whole(7, EXAMPLES, 5).masked_fill(whole(4, EXAMPLES, 5) == 0, -100)

# name -> (metric, activation, outputs, targets, what the outputs are made into for the library itself)
TASKS: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "R2": (regression.R2Score(), None, MEANS + 0.5 * normal(EXAMPLES), MEANS, None),
    "R2 of three": (regression.R2Score(), None, NOISY_MEANS, MANY_MEANS, None),
    "MAE": (regression.MeanAbsoluteError(), None, MEANS + 0.5 * normal(EXAMPLES), MEANS, None),
    "F1": (
        classification.MulticlassF1Score(num_classes=6, average="macro"),
        None,
        normal(EXAMPLES, 6),
        whole(6, EXAMPLES),
        None,
    ),
    "multi-label F1": (
        classification.MultilabelF1Score(num_labels=4),
        "sigmoid",
        normal(EXAMPLES, 4),
        whole(2, EXAMPLES, 4),
        torch.sigmoid,
    ),
    "AUROC in bins": (
        classification.MulticlassAUROC(num_classes=4, thresholds=20),
        "softmax",
        normal(EXAMPLES, 4),
        whole(4, EXAMPLES),
        lambda outputs: outputs.softmax(1),
    ),
    "perplexity": (text.Perplexity(ignore_index=-100), None, normal(EXAMPLES, 5, 7), TOKENS, None),
    "IoU": (
        classification.MulticlassJaccardIndex(num_classes=3),
        None,
        normal(EXAMPLES, 3, 4, 4),
        whole(3, EXAMPLES, 4, 4),
        None,
    ),
}


def scored(name: str, size: int = 64, sums: Sums | None = None) -> Answers:
    metric, activation, outputs, targets, _ = TASKS[name]
    scorer = ClassMetric(sums or Sums(metric), name, activation, is_prepared=False)
    return answer(outputs, targets, scorer, size=size, slices=SLICES)


def directly(name: str, chosen: list[int]) -> float:
    """What the library itself gives for some of the examples."""
    metric, _, outputs, targets, made = TASKS[name]
    metric = metric.clone()
    picked = outputs[chosen]
    metric.update(picked if made is None else made(picked), targets[chosen])
    return float(metric.compute())


@pytest.mark.parametrize("name", TASKS)
def test_the_score_is_the_librarys_on_all_examples_at_once(name: str) -> None:
    everything = list(range(EXAMPLES))
    for size in (1, 64, EXAMPLES):
        assert scored(name, size).score == pytest.approx(directly(name, everything), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_each_slice_has_the_score_of_its_own_examples(name: str) -> None:
    expected = [directly(name, [i for i, of in enumerate(SLICES) if of == index]) for index in range(3)]
    assert scored(name).slice_scores == pytest.approx(tuple(expected), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_sums_of_any_examples_come_to_the_score_of_these(name: str) -> None:
    """Drawn with repetition, as the bootstrap does: the library is shown the same example several times."""
    sums = Sums(TASKS[name][0])
    answers = scored(name, sums=sums)
    assert "interval" not in answers.why_not
    summands = torch.tensor(answers.summands, dtype=torch.float64).reshape(EXAMPLES, answers.width)
    chosen = torch.randint(EXAMPLES, (EXAMPLES,), generator=torch.Generator().manual_seed(1)).tolist()
    assert sums.score(summands[chosen].sum(dim=0)) == pytest.approx(directly(name, chosen), rel=1e-5)


def test_text_is_scored_as_lists_and_a_slice_has_its_own_lines() -> None:
    class Transcripts(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return [HEARD[int(index)] for index in x]

    jiwer = pytest.importorskip("jiwer")
    scorer = Prepared(
        ClassMetric(Sums(text.WordErrorRate()), "WER", None, is_prepared=True), lambda o, t: (o, t), "m:p"
    )
    answers = answer(Transcripts(), SAID, scorer, slices=SLICES, examples=EXAMPLES)
    assert answers.score == pytest.approx(jiwer.wer(SAID, HEARD))
    of_slices = [[i for i, of in enumerate(SLICES) if of == index] for index in range(3)]
    assert answers.slice_scores == pytest.approx(
        tuple(jiwer.wer([SAID[i] for i in chosen], [HEARD[i] for i in chosen]) for chosen in of_slices)
    )
    assert answers.width == 2
    assert sum((answers.summands or [])[1::2]) == sum(len(line.split()) for line in SAID)


def test_the_metric_itself_is_never_updated() -> None:
    metric = regression.MeanAbsoluteError()
    metric.update(torch.ones(3), torch.zeros(3))
    answers = answer(torch.zeros(8), torch.zeros(8), ClassMetric(Sums(metric), "MAE", None, is_prepared=False), size=3)
    assert answers.score == 0.0
    assert float(metric.compute()) == 1.0


def test_a_model_that_writes_every_answer_into_one_tensor_is_scored_right() -> None:
    class Reuses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.buffer = torch.zeros(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.buffer.copy_(x)

    scorer = ClassMetric(Sums(regression.KendallRankCorrCoef()), "Kendall", None, is_prepared=False)
    assert answer(Reuses(), torch.arange(12.0), scorer, size=4, examples=12).score == pytest.approx(1.0)


# --- what cannot be scored -------------------------------------------------------------------------------------------


class Broken(torchmetrics.Metric):
    """Gives whatever it was told to."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def update(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        del preds, targets

    def compute(self) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "told"),
    [
        (
            classification.MulticlassF1Score(num_classes=3, average=None),
            torch.zeros(4, 3),
            torch.zeros(4, dtype=torch.long),
            "the metric `M` returned a tensor of shape (3,), not one number; let it average",
        ),
        (
            Broken({"precision": 1, "recall": 1}),
            torch.zeros(4),
            torch.zeros(4),
            "returned a dict with precision, recall, not one number; let it average (`arguments: {average: macro}`, "
            "where it takes that), or derive a class from it whose `compute` returns one number",
        ),
        (Broken((1.0, 2.0)), torch.zeros(4), torch.zeros(4), "returned a tuple of 2, not one number"),
        (Broken(torch.tensor(math.nan)), torch.zeros(4), torch.zeros(4), "returned nan, which is not a finite number"),
        (Broken(math.inf), torch.zeros(4), torch.zeros(4), "returned inf, which is not a finite number"),
        (
            classification.MulticlassAccuracy(num_classes=3),
            torch.zeros(4, 2),
            torch.zeros(4, dtype=torch.long),
            "(predictions (4, 2) float32, targets (4,) int64)",
        ),
        (regression.R2Score(), torch.zeros(1), torch.zeros(1), "Needs at least two samples to calculate r2 score"),
        (
            classification.BinaryAUROC(),
            torch.tensor([0.1, 0.2, 0.3]),
            torch.zeros(3, dtype=torch.long),
            "the metric `M` has no meaning on this data: No positive samples in targets",
        ),
    ],
)
def test_what_cannot_be_scored_says_why(metric: Any, outputs: torch.Tensor, targets: torch.Tensor, told: str) -> None:
    with pytest.raises(VariantError, match=re.escape(told)):
        answer(outputs, targets, ClassMetric(Sums(metric), "M", None, is_prepared=False))


@pytest.mark.parametrize("average", ["micro", "macro"])
@pytest.mark.parametrize(("target", "example"), [(3, 2), (-100, 1)])
def test_a_target_that_is_no_class_is_refused_unless_it_is_ignored(average: Any, target: int, example: int) -> None:
    outputs, targets = normal(4, 3), torch.tensor([0, 1, 2, 0])
    targets[example] = target
    told = f"target {target} of example {example} is not one of the 3 classes of the metric `A`; where it stands for n"
    for ignored in (None, 7):
        metric = classification.MulticlassAccuracy(num_classes=3, average=average, ignore_index=ignored)
        with pytest.raises(VariantError, match=told):
            answer(outputs, targets, ClassMetric(Sums(metric), "A", None, is_prepared=False))
    metric = classification.MulticlassAccuracy(num_classes=3, average=average, ignore_index=target)
    rest = [index for index in range(4) if index != example]
    expected = classification.MulticlassAccuracy(num_classes=3, average=average)(outputs[rest], targets[rest])
    found = answer(outputs, targets, ClassMetric(Sums(metric), "A", None, is_prepared=False))
    assert found.score == pytest.approx(float(expected))


def test_perplexity_does_not_take_a_negative_target_for_a_class_from_the_end() -> None:
    scorer = ClassMetric(Sums(text.Perplexity()), "P", None, is_prepared=False)
    with pytest.raises(VariantError, match="target -1 of example 1 is not one of the 5 classes of the metric `P`"):
        answer(normal(2, 3, 5), torch.tensor([[0, 1, 2], [3, -1, 0]]), scorer)


def test_what_the_metric_warns_of_is_told_with_the_score() -> None:
    """Of four classes one does not occur; the others are scored."""
    targets = whole(3, 60)
    scorer = ClassMetric(Sums(classification.MulticlassAUROC(num_classes=4)), "AUROC", "softmax", is_prepared=False)
    answers = answer(normal(60, 4), targets, scorer)
    assert answers.score is not None
    assert [note.startswith("the metric AUROC warns: No positive samples in targets") for note in answers.notes] == [
        True
    ]


def test_a_slice_without_a_score_has_none() -> None:
    outputs, targets = normal(30).sigmoid(), whole(2, 30)
    targets[20:] = 0
    slices = [0] * 20 + [1] * 10
    scorer = ClassMetric(Sums(classification.BinaryAUROC()), "AUROC", None, is_prepared=False)
    answers = answer(outputs, targets, scorer, size=8, slices=slices)
    expected: Any = pytest.approx(float(classification.BinaryAUROC()(outputs[:20], targets[:20])))
    assert answers.slice_scores == (expected, None)
    scorer = ClassMetric(Sums(regression.R2Score()), "R2", None, is_prepared=False)
    assert (answer(normal(9), normal(9), scorer, slices=[0] * 8 + [1]).slice_scores or ())[1] is None


# --- what the interval needs -----------------------------------------------------------------------------------------


class MeanOfBatches(torchmetrics.Metric):
    """Says that its state adds up, which it does over batches only."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        self.total += (preds - targets).abs().mean()

    def compute(self) -> Any:
        return self.total


class Demanding(regression.MeanSquaredError):
    def update(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        if len(preds) < 2:
            raise ValueError("a pair at least")
        super().update(preds, targets)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (regression.KendallRankCorrCoef(), "the metric is no function of sums over the examples"),
        (regression.PearsonCorrCoef(), "the metric is no function of sums over the examples"),
        (torchmetrics.MinMaxMetric(regression.MeanSquaredError()), None),
        (regression.MeanSquaredError() + 1.0, "the metric is no function of sums over the examples"),
        (MeanOfBatches(), "the metric is not what the sums over its examples come to"),
        (Demanding(), "the metric takes no single example: ValueError: a pair at least"),
    ],
    ids=["Kendall", "Pearson", "wrapped", "composed", "a mean of batches", "no single example"],
)
def test_a_metric_that_is_no_sum_over_examples_has_no_summands(metric: Any, told: str | None) -> None:
    scorer = ClassMetric(Sums(metric), "M", None, is_prepared=False)
    if told is None:
        assert not ours.adds_up(metric)
        return
    answers = answer(normal(40), normal(40), scorer, size=8)
    assert answers.why_not["interval"].startswith(told)
    assert answers.summands is None


@pytest.mark.parametrize(
    ("change", "given"),
    [(lambda tensor: tensor.flatten(), 60), (lambda tensor: tensor[:3], 3)],
    ids=["all in one", "a few of them"],
)
def test_predictions_that_belong_to_no_example_have_neither_slices_nor_summands(change: Any, given: int) -> None:
    outputs, targets = normal(20, 3), normal(20, 3)
    metric = ClassMetric(Sums(regression.MeanAbsoluteError()), "MAE", None, is_prepared=True)
    scorer = Prepared(metric, lambda outputs, targets: (change(outputs), change(targets)), "m:p")
    answers = answer(outputs, targets, scorer, slices=[0, 1] * 10)
    assert answers.score == pytest.approx(float((change(outputs) - change(targets)).abs().mean()), rel=1e-5)
    assert answers.slice_scores is None
    for missing in ("slices", "interval"):
        assert f"{given} predictions and {given} targets for 20 examples" in answers.why_not[missing]


def test_more_examples_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "MOST_EXAMPLES", 99)
    scorer = ClassMetric(Sums(regression.MeanAbsoluteError()), "MAE", None, is_prepared=False)
    answers = answer(normal(100), normal(100), scorer)
    assert "more than 99 examples or 64 MiB" in answers.why_not["interval"]
    assert answers.summands is None


# --- prepare ---------------------------------------------------------------------------------------------------------


def raises(outputs: Any, targets: Any) -> Any:
    raise KeyError("tokens")


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (raises, "`prepare`, m:p, raised KeyError: 'tokens'"),
        (lambda outputs, targets: outputs, "`prepare`, m:p, returned a Tensor; it must return (predictions, targets)"),
        (lambda outputs, targets: (outputs, targets, 1), "`prepare`, m:p, returned a tuple of 3; it must return"),
    ],
)
def test_a_prepare_that_does_not_do_its_work(prepare: Any, told: str) -> None:
    scorer = Prepared(ClassMetric(Sums(regression.MeanAbsoluteError()), "MAE", None, is_prepared=True), prepare, "m:p")
    with pytest.raises(VariantError, match=re.escape(told)):
        answer(torch.zeros(4), torch.zeros(4), scorer)


def test_nothing_here_warned() -> None:
    """What the library says of the data is caught and told: nothing of it reaches the user's own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = classification.MulticlassAUROC(num_classes=4)
        answer(normal(60, 4), whole(3, 60), ClassMetric(Sums(metric), "AUROC", "softmax", is_prepared=False))


def test_segmentation_goes_through_prepare() -> None:
    outputs, targets = normal(20, 3, 6, 6), whole(3, 20, 6, 6)

    def one_hot(scores: torch.Tensor, truth: torch.Tensor) -> Any:
        return tuple(nn.functional.one_hot(index, 3).movedim(-1, 1) for index in (scores.argmax(1), truth))

    expected = segmentation.MeanIoU(num_classes=3)
    expected.update(*one_hot(outputs, targets))
    scorer = Prepared(
        ClassMetric(Sums(segmentation.MeanIoU(num_classes=3)), "IoU", None, is_prepared=True), one_hot, "m:p"
    )
    assert answer(outputs, targets, scorer, size=20).score == pytest.approx(float(expected.compute()))
