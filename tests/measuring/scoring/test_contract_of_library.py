"""Classes of torchmetrics asked for what they take: never red where scoring takes it, whatever the class is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchmetrics import audio, classification, clustering, image, nominal, regression, segmentation, text, wrappers

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.metrics.scorer import Batch
from pytest_modelopt.measuring.worker.metrics.torchmetrics import ClassMetric, Sums
from tests.measuring.contract import known, misfit

EXAMPLES = 6
GENERATOR = torch.Generator().manual_seed(0)
c, r, s = classification, regression, segmentation


def part(*shape: int) -> torch.Tensor:
    """Between 0 and 1."""
    return torch.rand(EXAMPLES, *shape, generator=GENERATOR)


def shares(classes: int, *shape: int) -> torch.Tensor:
    return part(classes, *shape).softmax(1)


def whole(most: int, *shape: int) -> torch.Tensor:
    """With the largest number in the first example."""
    found = torch.randint(most, (EXAMPLES, *shape), generator=GENERATOR)
    found.view(-1)[0] = most - 1
    return found


def ignored(targets: torch.Tensor, value: int) -> torch.Tensor:
    targets.view(-1)[1] = value
    return targets


TAKEN: dict[str, Callable[[], tuple[Any, torch.Tensor, torch.Tensor]]] = {
    "binary accuracy": lambda: (c.BinaryAccuracy(), part(), whole(2)),
    "binary AUROC": lambda: (c.BinaryAUROC(), part(), whole(2)),
    "binary F1 of a column": lambda: (c.BinaryF1Score(), part(1), whole(2, 1)),
    "average precision of two": lambda: (c.BinaryAveragePrecision(ignore_index=-1), part(), ignored(whole(2), -1)),
    "accuracy": lambda: (c.MulticlassAccuracy(5), shares(5), whole(5)),
    "accuracy of labels": lambda: (c.MulticlassAccuracy(5), whole(5), whole(5)),
    "accuracy of the best two": lambda: (c.MulticlassAccuracy(5, top_k=2), shares(5), whole(5)),
    "accuracy without a number of classes": lambda: (c.MulticlassAccuracy(average="micro"), shares(5), whole(5)),
    "F1, ignoring": lambda: (c.MulticlassF1Score(5, ignore_index=-100), shares(5), ignored(whole(5), -100)),
    "AUROC": lambda: (c.MulticlassAUROC(5), shares(5), whole(5)),
    "average precision": lambda: (c.MulticlassAveragePrecision(5, thresholds=9), shares(5), whole(5)),
    "calibration": lambda: (c.MulticlassCalibrationError(5), shares(5), whole(5)),
    "kappa": lambda: (c.MulticlassCohenKappa(5), shares(5), whole(5)),
    "hinge": lambda: (c.MulticlassHingeLoss(5), shares(5), whole(5)),
    "exact match": lambda: (c.MulticlassExactMatch(3), shares(3, 4), whole(3, 4)),
    "each example": lambda: (c.MulticlassAccuracy(3, multidim_average="samplewise"), shares(3, 4), whole(3, 4)),
    "IoU": lambda: (c.MulticlassJaccardIndex(3, ignore_index=9), shares(3, 4, 4), ignored(whole(3, 4, 4), 9)),
    "multilabel accuracy": lambda: (c.MultilabelAccuracy(4), part(4), whole(2, 4)),
    "multilabel AUROC": lambda: (c.MultilabelAUROC(4), part(4), whole(2, 4)),
    "multilabel ranking": lambda: (c.MultilabelRankingLoss(4), part(4), whole(2, 4)),
    "multilabel coverage": lambda: (c.MultilabelCoverageError(4), part(4), whole(2, 4)),
    "multilabel exact match of pixels": lambda: (c.MultilabelExactMatch(4), part(4, 3), whole(2, 4, 3)),
    "MSE": lambda: (r.MeanSquaredError(), part(), part()),
    "MSE of three": lambda: (r.MeanSquaredError(num_outputs=3), part(3), part(3)),
    "MSE of images": lambda: (r.MeanSquaredError(), part(3, 4, 4), part(3, 4, 4)),
    "MAE in half precision": lambda: (r.MeanAbsoluteError(), part().half(), part()),
    "MAPE": lambda: (r.MeanAbsolutePercentageError(), part(2), part(2)),
    "MSLE": lambda: (r.MeanSquaredLogError(), part(), part()),
    "R2": lambda: (r.R2Score(), part(), part()),
    "R2 of three": lambda: (r.R2Score(multioutput="raw_values"), part(3), part(3)),
    "Pearson": lambda: (r.PearsonCorrCoef(), part(), part()),
    "Spearman of three": lambda: (r.SpearmanCorrCoef(num_outputs=3), part(3), part(3)),
    "Kendall": lambda: (r.KendallRankCorrCoef(), part(), part()),
    "concordance": lambda: (r.ConcordanceCorrCoef(), part(), part()),
    "explained variance": lambda: (r.ExplainedVariance(), part(2), part(2)),
    "cosine": lambda: (r.CosineSimilarity(), part(8), part(8)),
    "KL": lambda: (r.KLDivergence(), shares(4), shares(4)),
    "log cosh": lambda: (r.LogCoshError(), part(), part()),
    "Minkowski": lambda: (r.MinkowskiDistance(3), part(), part()),
    "Tweedie": lambda: (r.TweedieDevianceScore(power=2), part() + 0.1, part() + 0.1),
    "ensembles": lambda: (r.ContinuousRankedProbabilityScore(), part(5), part()),
    "critical success": lambda: (r.CriticalSuccessIndex(0.5), part(), part()),
    "weighted MAPE": lambda: (r.WeightedMeanAbsolutePercentageError(), part(), part()),
    "mean IoU of labels": lambda: (s.MeanIoU(3, input_format="index"), whole(3, 4, 4), whole(3, 4, 4)),
    "mean IoU one-hot": lambda: (s.MeanIoU(3), whole(2, 3, 4, 4), whole(2, 3, 4, 4)),
    "Dice of labels": lambda: (s.DiceScore(3, input_format="index"), whole(3, 4, 4), whole(3, 4, 4)),
    "generalized Dice": lambda: (s.GeneralizedDiceScore(3, input_format="index"), whole(3, 4, 4), whole(3, 4, 4)),
    "Hausdorff": lambda: (s.HausdorffDistance(3, input_format="index"), whole(3, 8, 8), whole(3, 8, 8)),
    "PSNR": lambda: (image.PeakSignalNoiseRatio(data_range=1.0), part(3, 16, 16), part(3, 16, 16)),
    "SSIM": lambda: (image.StructuralSimilarityIndexMeasure(data_range=1.0), part(3, 16, 16), part(3, 16, 16)),
    "UQI": lambda: (image.UniversalImageQualityIndex(), part(3, 16, 16), part(3, 16, 16)),
    "spectral angle": lambda: (image.SpectralAngleMapper(), part(3, 16, 16), part(3, 16, 16)),
    "ERGAS": lambda: (image.ErrorRelativeGlobalDimensionlessSynthesis(), part(3, 16, 16), part(3, 16, 16)),
    "spatial correlation": lambda: (image.SpatialCorrelationCoefficient(), part(3, 16, 16), part(3, 16, 16)),
    "RASE": lambda: (image.RelativeAverageSpectralError(), part(3, 16, 16), part(3, 16, 16)),
    "SNR": lambda: (audio.SignalNoiseRatio(), part(100), part(100)),
    "SI-SDR": lambda: (audio.ScaleInvariantSignalDistortionRatio(), part(2, 100), part(2, 100)),
    "complex SI-SNR": lambda: (audio.ComplexScaleInvariantSignalNoiseRatio(), part(9, 10, 2), part(9, 10, 2)),
    "perplexity": lambda: (text.Perplexity(ignore_index=-100), shares(5, 4).mT, ignored(whole(5, 4), -100)),
    "Cramer": lambda: (nominal.CramersV(5), whole(5), whole(5)),
    "Theil": lambda: (nominal.TheilsU(5), whole(5), whole(5)),
    "mutual information": lambda: (clustering.MutualInfoScore(), whole(5), whole(5)),
    "Rand": lambda: (clustering.AdjustedRandScore(), whole(5), whole(5)),
    "least and most": lambda: (wrappers.MinMaxMetric(c.MulticlassAccuracy(5)), shares(5), whole(5)),
    "each output": lambda: (wrappers.MultioutputWrapper(r.R2Score(), 3), part(3), part(3)),
    "bootstrap": lambda: (wrappers.BootStrapper(r.MeanSquaredError(), num_bootstraps=2), part(), part()),
}  # fmt: skip
OTHER_OUTPUTS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda outputs: outputs[..., :-1] if outputs.ndim > 1 else outputs,
    lambda outputs: outputs[:, 0] if outputs.ndim > 1 else outputs,
    lambda outputs: outputs.unsqueeze(-1),
    lambda outputs: outputs.unsqueeze(1),
    lambda outputs: outputs.reshape(EXAMPLES, -1),
    lambda outputs: outputs.mT if outputs.ndim > 2 else outputs,
    lambda outputs: outputs.double(),
    lambda outputs: outputs.bool(),
)


def is_scored(metric: Any, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    scorer = ClassMetric(Sums(metric), "M", None, is_prepared=False, keeps_singles=False)
    try:
        scorer.add(outputs, Batch(torch.zeros(EXAMPLES, 3), targets))
    except VariantError:
        return False
    return True


@pytest.mark.parametrize("name", TAKEN)
def test_what_scoring_takes_is_never_told_as_a_misfit(name: str) -> None:
    """Of the shapes that the class takes, and of others, of which it takes some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric, outputs, targets = TAKEN[name]()
        assert is_scored(metric, outputs, targets)
        for examples in (1, 2, EXAMPLES):
            assert misfit(metric, outputs[:examples], known(targets)) == ""
        for changed in OTHER_OUTPUTS:
            other = changed(outputs)
            if misfit(metric, other[:2], known(targets)):
                assert not is_scored(metric, other, targets), tuple(other.shape)
