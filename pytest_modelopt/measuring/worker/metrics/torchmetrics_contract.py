"""Predictions and targets that a class of torchmetrics takes, asked without scoring."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import KnownTargets, error_text
from pytest_modelopt.measuring.worker.metrics.scored_outputs import scored_tensor, shape
from pytest_modelopt.measuring.worker.source_loading import same_random_state

_EXAMPLES = 2
"""Of zeros, by which a metric is asked: with one alone some of them drop a dimension."""


def misfit(metric: Any, name: str, outputs: Any, targets: KnownTargets, examples: int) -> str:
    """Why the outputs of a call of so many examples cannot be scored with the targets of the data, for certain; ''
    where they may be.

    The library's own classes only: they refuse shapes, whatever the numbers are. What a class of the project does is
    not known, and it is not called for a question.
    """
    scored = scored_tensor(outputs, examples)
    if scored is None or type(metric).__module__.split(".")[0] != "torchmetrics":
        return ""
    got = f"the model answers {shape(scored)}, and the targets of the data are {targets}"
    classes = classes_of(metric, scored)
    outside = None if classes is None else targets.first_outside(classes, ignored_by(metric))
    if outside is not None and classes is not None:
        return f"{none_of(*outside, classes, name)}; {got}"
    try:
        given = torch.zeros((_EXAMPLES, *scored.shape[1:]), dtype=scored.dtype)
        wanted = torch.zeros((_EXAMPLES, *targets.shape), dtype=getattr(torch, targets.dtype))
        with same_random_state(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fresh(metric).update(given, wanted)
    except Exception as error:
        if "shape" in str(error):
            return f"the metric `{name}` does not take the outputs: {got} ({error_text(error)})"
    return ""


def classes_of(metric: Any, predictions: Any) -> int | None:
    """How many classes the targets may name; None where they name none."""
    import torchmetrics.text

    if isinstance(metric, torchmetrics.text.Perplexity) and isinstance(predictions, torch.Tensor):
        return predictions.shape[-1]
    classes = getattr(metric, "num_classes", None)
    return classes if type(classes) is int else None


def ignored_by(metric: Any) -> Sequence[int]:
    """Targets that stand for nothing."""
    ignored = getattr(metric, "ignore_index", None)
    return ignored if isinstance(ignored, (list, tuple)) else () if ignored is None else (ignored,)


def none_of(target: int, example: int, classes: int, name: str) -> str:
    """That a target is no class of the metric that is called `name`."""
    return (
        f"target {target} of example {example} is not one of the {classes} classes of the metric `{name}`; where it "
        "stands for nothing, say so: `arguments: {ignore_index: ...}`"
    )


def fresh(metric: Any) -> Any:
    """A copy to which no example was shown."""
    copied = metric.clone()
    copied.reset()
    return copied
