"""Accuracy and top-K accuracy: right or wrong for each example, with the class that the model predicts."""

from __future__ import annotations

from array import array
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import KnownTargets, VariantError
from pytest_modelopt.measuring.worker.metrics.scored_outputs import class_scores, scored_tensor, shape
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score


class Classification:
    """Share of examples whose target is among the K classes with the largest scores.

    Of equal scores the class with the lower index goes first, as in `torch.argmax`. So the order of classes is total,
    exactly K of them count, and the same outputs give the same answer on every machine.
    """

    def __init__(self, k: int, metric: str) -> None:
        self._k = k
        self._metric = metric
        self._predictions, self._targets = array("q"), array("q")
        self._classes = 0
        self._correct = bytearray()

    def add(self, outputs: Any, batch: Batch) -> None:
        scores, targets = class_scores(outputs, batch, self._metric), _tensor(batch.targets, self._metric)
        self._require_fit(scores, targets, batch)
        targets = targets.long()
        ours = scores.gather(1, targets.unsqueeze(1))
        earlier = torch.arange(scores.shape[1]) < targets.unsqueeze(1)
        before = ((scores > ours) | ((scores == ours) & earlier)).sum(dim=1)
        self._predictions.extend(scores.argmax(dim=1).tolist())
        self._classes = max(self._classes, scores.shape[1])
        self._targets.extend(targets.tolist())
        self._correct.extend((before < self._k).to(torch.uint8).tolist())

    def score(self, slices: int) -> Score:
        del slices  # counted from `correct`
        return Score(
            value=sum(self._correct) / len(self._correct),
            predictions=self._predictions,
            correct=bytes(self._correct),
            targets=self._targets,
            classes=self._classes,
        )

    def _require_fit(self, scores: torch.Tensor, targets: torch.Tensor, batch: Batch) -> None:
        if scores.ndim != 2 or len(scores) != batch.examples or targets.shape != scores.shape[:1] or _is_real(targets):
            raise VariantError(
                f"{_needs(self._metric)}; got outputs {tuple(scores.shape)} and targets {tuple(targets.shape)} "
                f"{str(targets.dtype)[6:]} for {batch.examples} examples; {_OTHER_TASK}"
            )
        classes = scores.shape[1]
        if 1 < self._k >= classes:
            raise VariantError(_always_right(self._metric, classes))
        outside = ((targets < 0) | (targets >= classes)).nonzero()
        if len(outside):
            index = int(outside[0])
            raise VariantError(_none_of(int(targets[index]), batch.first + index, classes))


def misfit(k: int, metric: str, outputs: Any, targets: KnownTargets, examples: int) -> str:
    """Why the outputs of a call of so many examples cannot be scored with the targets of the data, for certain; ''
    where they may be."""
    scores = scored_tensor(outputs, examples, 2)
    if scores is None:
        return ""
    got = f"the model answers {shape(scores)}, and the targets of the data are {targets}"
    if scores.ndim != 2 or targets.shape or "float" in targets.dtype or "complex" in targets.dtype:
        return f"{_needs(metric)}, but {got}; {_OTHER_TASK}"
    classes = scores.shape[1]
    if 1 < k >= classes:
        return f"{_always_right(metric, classes)} ({got})"
    outside = targets.first_outside(classes)
    return "" if outside is None else f"{_none_of(*outside, classes)}: {got}"


_OTHER_TASK = "for another task give `metric: torchmetrics.<part>.<Class>` or `metric: package.module:function`"


def _needs(metric: str) -> str:
    return f"{metric} needs outputs of shape (examples, classes) and integer targets of shape (examples,)"


def _always_right(metric: str, classes: int) -> str:
    return f"{metric} is right whatever a model of {classes} classes answers; write a K below {classes}"


def _none_of(target: int, example: int, classes: int) -> str:
    return f"target {target} of example {example} is not one of the model's {classes} classes"


def _is_real(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _tensor(targets: Any, metric: str) -> torch.Tensor:
    """Targets as a tensor, also where they come as a list of whole numbers."""
    if isinstance(targets, torch.Tensor):
        return targets
    if isinstance(targets, (list, tuple)) and targets and all(type(target) is int for target in targets):
        return torch.tensor(targets)
    what = f"a list of {type(targets[0]).__name__}" if isinstance(targets, (list, tuple)) and targets else "none"
    raise VariantError(f"{metric} needs integer targets of shape (examples,), and the data gives {what}; {_OTHER_TASK}")
