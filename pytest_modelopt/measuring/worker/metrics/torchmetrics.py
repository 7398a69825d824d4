"""Metrics of torchmetrics: a class or an instance, updated batch by batch, with what it keeps for single examples.

The library is imported by `library()` only, when a metric of it is used.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import warnings
from array import array
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.calls.structure import own
from pytest_modelopt.measuring.worker.metrics.entries import usable
from pytest_modelopt.measuring.worker.metrics.scored_outputs import (
    by_slice,
    count,
    number,
    output_tensor,
    pick,
    raised_by,
    shape,
)
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score
from pytest_modelopt.measuring.worker.metrics.torchmetrics_contract import classes_of, fresh, ignored_by, none_of
from pytest_modelopt.results.metric import Activation

MOST_EXAMPLES = 20_000
MOST_BYTES = 64 * 1024 * 1024
"""Bounds of what is kept for the interval: sums of single examples."""
_ROUNDING = 1e-5
"""Relative: torchmetrics adds up in float32, over as many batches as there are."""

# These take probabilities, and guess for each batch whether they were given some: they apply a sigmoid or a softmax of
# their own as soon as one value of the batch is outside [0, 1]. Derived classes do as their bases do.
_OF_PROBABILITIES = {
    "sigmoid": (
        "BinaryStatScores",
        "MultilabelStatScores",
        "BinaryConfusionMatrix",
        "MultilabelConfusionMatrix",
        "BinaryPrecisionRecallCurve",
        "MultilabelPrecisionRecallCurve",
        "BinaryCalibrationError",
        "BinaryHingeLoss",
        "MultilabelExactMatch",
        "MultilabelCoverageError",
        "MultilabelRankingAveragePrecision",
        "MultilabelRankingLoss",
        "BinaryGroupStatRates",
        "BinaryFairness",
    ),
    "softmax": ("MulticlassPrecisionRecallCurve", "MulticlassCalibrationError", "MulticlassHingeLoss"),
}


_MEANINGLESS = ("meaningless", "undefined")
"""What torchmetrics says of a number that it returns all the same, such as the AUROC of data with one class."""
_AVERAGE = (
    "let it average (`arguments: {average: macro}`, where it takes that), or derive a class from it whose `compute` "
    "returns one number: `metric: package.module:Class`"
)


def library(metric: str) -> Any:
    """The package. Raises VariantError where it is not installed."""
    try:
        import torchmetrics
    except ImportError as error:
        raise VariantError(
            f'the metric `{metric}` needs torchmetrics ({error}): run `pip install "pytest-modelopt[metrics]"`'
        ) from error
    return torchmetrics


def left_out(metric: str) -> str:
    """Why the library does not bring the class in this environment, and the way out; '' where nothing is told.

    It imports some of its classes only where the packages are that they need.
    """
    module_name, _, name = metric.rpartition(".")
    try:
        module = importlib.import_module(module_name)
        tree = ast.parse("" if hasattr(module, name) else inspect.getsource(module))
    except (ImportError, OSError, TypeError):
        return ""
    for node in ast.walk(tree):
        imports = (inner for inner in ast.walk(node) if isinstance(inner, ast.ImportFrom))
        if isinstance(node, ast.If) and name in {alias.name for each in imports for alias in each.names}:
            flags = [each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)]
            absent = [flag for flag in flags if not getattr(module, flag, True)]
            packages = [flag.strip("_").removesuffix("_AVAILABLE").lower().replace("_", "-") for flag in absent]
            part = module_name.split(".")[1]
            return (
                f"the metric `{metric}` needs {' and '.join(packages)}, without which torchmetrics leaves it out: run "
                f'`pip install "torchmetrics[{part}]"`'
            )
    return ""


def takes_probabilities(metric: Any) -> str:
    """By which activation logits become what the metric takes; '' for one that takes outputs as they are.

    Those that wrap another metric hold it as a submodule.
    """
    import torchmetrics.classification

    for activation, names in _OF_PROBABILITIES.items():
        bases = tuple(getattr(torchmetrics.classification, name, ()) for name in names)
        if any(isinstance(module, bases) for module in metric.modules()):
            return activation
    return ""


def worst_of(metric: Any, *, higher_is_better: bool) -> float | None:
    """The bound of the library's own classes at the end that is the worse one; None where they state none."""
    import torchmetrics

    bound = getattr(metric, "plot_lower_bound" if higher_is_better else "plot_upper_bound", None)
    is_theirs = type(metric).__module__.split(".")[0] == torchmetrics.__name__
    return float(bound) if is_theirs and isinstance(bound, (int, float)) else None


class ClassMetric:
    """Scores with fresh copies of the metric in `sums`; `name` is what errors call it.

    Without `prepare`, the outputs are the model's, of which one tensor is scored; with it, they are what it made.
    """

    def __init__(
        self, sums: Sums, name: str, activation: Activation | None, *, is_prepared: bool, keeps_singles: bool = True
    ) -> None:
        metric = sums.metric
        self._name = name
        self._activation = activation
        self._is_prepared = is_prepared
        self._needed = takes_probabilities(metric) if activation is None else ""
        self._blank = metric
        self._metric = fresh(metric)
        self._of_slices: dict[int, Any] = {}
        self._broken_slices: set[int] = set()
        self._singles = Singles(sums, "" if keeps_singles else "nobody needs them")
        self._mixed = ""
        """Why predictions and targets cannot be told apart by example; empty where they can."""

    def add(self, outputs: Any, batch: Batch) -> None:
        predictions = self._activated(own(self._predictions(outputs, batch)))
        self._refuse_logits(predictions, batch)
        targets = own(batch.targets)
        self._refuse_other_classes(predictions, targets, batch)
        given = f" (predictions {shape(predictions)}, targets {shape(targets)})"
        counts = count(predictions), count(targets)
        if None not in counts and counts[0] != counts[1]:  # some of the library's metrics pair as many as there are
            raise VariantError(
                f"the metric `{self._name}` is given {counts[0]} predictions for {counts[1]} targets{given}"
            )
        with raised_by(f"the metric `{self._name}`", given):
            self._metric.update(predictions, targets)
        if counts != (batch.examples, batch.examples):
            self._mixed = (
                f"{self._name} is given {counts[0]} predictions and {counts[1]} targets for {batch.examples} examples, "
                "so none of them belongs to one example"
            )
        if self._mixed:
            return
        self._singles.add(predictions, targets, batch.examples)
        for index, positions in by_slice(batch).items():
            self._update_slice(index, pick(predictions, positions), pick(targets, positions))

    def score(self, slices: int) -> Score:
        with raised_by(f"the metric `{self._name}`"):
            computed, said = compute(self._metric)
        value = number(computed, f"the metric `{self._name}`", _AVERAGE)
        meaningless = [text for text in said if _is_meaningless(text)]
        if meaningless and _is_binary(self._metric):
            raise VariantError(f"the metric `{self._name}` has no meaning on this data: {meaningless[0]}")
        found = Score(value, notes=tuple(f"the metric {self._name} warns: {text}" for text in said))
        if slices and self._mixed:
            found.why_not["slices"] = self._mixed
        elif slices:
            found.slice_scores = tuple(self._slice_score(index) for index in range(slices))
        no_interval = self._mixed or self._singles.why_not(value)
        if no_interval:
            found.why_not["interval"] = no_interval
        else:
            found.summands, found.width = self._singles.summands, self._singles.width
        return found

    def _predictions(self, outputs: Any, batch: Batch) -> Any:
        """One tensor of the outputs, or the texts or dicts of which they hold one for each example."""
        is_list = isinstance(outputs, (list, tuple)) and all(isinstance(entry, (str, dict)) for entry in outputs)
        if self._is_prepared or (is_list and outputs):
            return usable(outputs, batch.first)
        return output_tensor(outputs, batch, self._name)

    def _activated(self, predictions: Any) -> Any:
        if self._activation is None:
            return predictions
        if not isinstance(predictions, torch.Tensor) or not predictions.is_floating_point():
            raise VariantError(
                f"`activation: {self._activation}` is for outputs of floating point, and the metric `{self._name}` is "
                f"given {shape(predictions)}; remove it"
            )
        if self._activation == "sigmoid":
            return predictions.sigmoid()
        if predictions.ndim < 2:
            raise VariantError(
                f"`activation: softmax` needs outputs of shape (examples, classes), and got {shape(predictions)}; for "
                "one probability per example write `sigmoid`"
            )
        return predictions.softmax(dim=1)

    def _refuse_logits(self, predictions: Any, batch: Batch) -> None:
        if not self._needed or not isinstance(predictions, torch.Tensor) or not predictions.is_floating_point():
            return
        if not predictions.numel():
            return
        low, high = (float(end) for end in predictions.aminmax())
        if low >= 0 and high <= 1:
            return
        raise VariantError(
            f"the metric `{self._name}` takes probabilities, and the model returns values from {low:.4g} to {high:.4g} "
            f"(in the batch of example {batch.first}): add `activation: {self._needed}` below `metric`"
        )

    def _refuse_other_classes(self, predictions: Any, targets: Any, batch: Batch) -> None:
        """Not all of the library's classes look: with some a target that is no class counts as a wrong answer, and
        perplexity takes -1 for the last one."""
        classes = classes_of(self._metric, predictions)
        if classes is None or not isinstance(targets, torch.Tensor) or targets.is_floating_point():
            return
        outside = (targets < 0) | (targets >= classes)
        for index in ignored_by(self._metric):
            outside &= targets != index
        if bool(outside.any()):
            row = int(outside.nonzero()[0][0]) if targets.ndim else 0
            raise VariantError(none_of(int(targets[outside][0]), batch.first + row, classes, self._name))

    def _update_slice(self, index: int, predictions: Any, targets: Any) -> None:
        if index not in self._of_slices:
            self._of_slices[index] = fresh(self._blank)
        try:
            self._of_slices[index].update(predictions, targets)
        except Exception:
            self._broken_slices.add(index)  # no score there: that is told as such

    def _slice_score(self, index: int) -> float | None:
        if index not in self._of_slices or index in self._broken_slices:
            return None
        value = finite(self._of_slices[index])
        return None if math.isnan(value) else value


class Sums:
    """A metric and its states as one row of numbers. The row's layout is known once there was one."""

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        """To be copied, never updated."""
        self.adds_up = adds_up(metric)
        """Whether the metric says that its state after some examples is the sum of the states after each of them."""
        self._layout: list[tuple[str, torch.Size, torch.dtype]] | None = None
        self._again = fresh(metric)

    def row(self, metric: Any) -> torch.Tensor:
        """The states of a copy of the metric. Some have another shape than they began with."""
        states = [(name, getattr(metric, name).detach()) for name in metric._defaults]
        layout = [(name, state.shape, state.dtype) for name, state in states]
        if self._layout is not None and layout != self._layout:
            raise ValueError("its states change their shapes")
        self._layout = layout
        return torch.cat([state.reshape(-1).double() for _, state in states])

    def score(self, row: torch.Tensor) -> float:
        """What the metric computes from such states; NaN where it cannot."""
        assert self._layout is not None
        metric, start = self._again, 0
        metric.reset()
        for name, shape_, dtype in self._layout:
            part = row[start : start + shape_.numel()].reshape(shape_)
            setattr(metric, name, part.to(dtype))
            start += shape_.numel()
        metric._update_count = 1  # or it warns that it was shown nothing
        return finite(metric)


class Singles:
    """The states that the metric has after each single example, where their sum is the state after all of them.

    Nothing says so but the metric itself: it is checked at the end, with the score.
    """

    def __init__(self, sums: Sums, why_not: str) -> None:
        """`why_not`: empty where they are wanted."""
        self.summands = array("d")
        self.width = 0
        self._sums = sums
        self._metric = fresh(sums.metric)
        self._examples = 0
        self._stopped = why_not if sums.adds_up else "the metric is no function of sums over the examples"

    def add(self, predictions: Any, targets: Any, examples: int) -> None:
        for index in range(examples):
            if self._stopped:
                return
            self._metric.reset()
            try:
                self._metric.update(pick(predictions, [index]), pick(targets, [index]))
                row = self._sums.row(self._metric)
            except Exception as error:
                self._stop(f"the metric takes no single example: {error_text(error, 200)}")
                return
            self.width = len(row)
            self._examples += 1
            self.summands.extend(row.tolist())
            if self._examples > MOST_EXAMPLES or len(self.summands) * 8 > MOST_BYTES:
                most = f"{MOST_EXAMPLES:,} examples or {MOST_BYTES // 1024**2} MiB"
                self._stop(f"it would take the metric's sums of each example, and more than {most} of these")

    def why_not(self, score: float) -> str:
        """Why there are no summands, after all examples; empty where there are."""
        if self._stopped:
            return self._stopped
        row = torch.frombuffer(self.summands, dtype=torch.float64).reshape(-1, self.width).sum(dim=0)
        again = self._sums.score(row)
        if math.isclose(again, score, rel_tol=_ROUNDING, abs_tol=1e-9):
            return ""
        return f"the metric is not what the sums over its examples come to: {again:.6g} instead of {score:.6g}"

    def _stop(self, why: str) -> None:
        self._stopped = why
        self.summands = array("d")


def adds_up(metric: Any) -> bool:
    """Whether all that the metric knows of the examples is in tensors that add up, as it says itself."""
    import torchmetrics
    from torchmetrics.utilities.data import dim_zero_sum

    if any(module is not metric and isinstance(module, torchmetrics.Metric) for module in metric.modules()):
        return False  # it wraps another one, which knows more
    states, reductions = metric._defaults.values(), metric._reductions.values()
    is_tensors = bool(states) and all(isinstance(state, torch.Tensor) for state in states)
    return is_tensors and all(reduction is dim_zero_sum for reduction in reductions)


def finite(metric: Any) -> float:
    """What the metric comes to; NaN where that is not one number that means something."""
    try:
        value, said = compute(metric)
        found = number(value, "", "")
    except Exception:
        return math.nan
    return math.nan if any(map(_is_meaningless, said)) else found


def compute(metric: Any) -> tuple[Any, list[str]]:
    """What the metric gives, and what it warns of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = metric.compute()
    said = (" ".join(str(warning.message).split())[:300] for warning in caught)
    return value, list(dict.fromkeys(said))


def _is_meaningless(warning: str) -> bool:
    return any(word in warning for word in _MEANINGLESS)


def _is_binary(metric: Any) -> bool:
    """Whether one class alone leaves nothing to score: with several, the others still count."""
    import torchmetrics.classification

    return isinstance(metric, torchmetrics.classification.BinaryPrecisionRecallCurve)
