"""What a metric is given of a model's outputs: the one tensor that it scores, or what the project's `prepare` makes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError, error_text
from pytest_modelopt.measuring.worker.calls.structure import tensors_in
from pytest_modelopt.measuring.worker.metrics.entries import refuse_no_answers, usable
from pytest_modelopt.measuring.worker.metrics.scorer import Batch, Score, Scorer

Prepare = Callable[[Any, Any], Any]
"""(outputs, targets) -> (predictions, targets) of one batch."""


def class_scores(outputs: Any, batch: Batch, metric: str) -> torch.Tensor:
    """The output itself, its `logits`, or the only tensor of the shape (examples, classes)."""
    return _chosen(
        outputs,
        batch,
        metric,
        lambda tensor: tensor.ndim == 2 and len(tensor) == batch.examples,
        "a tensor of class scores",
        "tensors of the shape (examples, classes)",
    )


def output_tensor(outputs: Any, batch: Batch, metric: str) -> torch.Tensor:
    """The output itself, its `logits`, or the only tensor of floating point in it."""
    return _chosen(outputs, batch, metric, lambda _: True, "one tensor", "tensors of floating point")


def scored_tensor(outputs: Any, examples: int, dimensions: int | None = None) -> torch.Tensor | None:
    """The tensor of a call that is scored, whatever numbers it holds; None where only scoring can tell.

    It has an entry for each of the call's `examples`, and a model that drops sizes of 1 (`squeeze()`) must not be taken
    for one whose larger batches have that shape, too. `dimensions`: of the one to look for among several.
    """
    with contextlib.suppress(VariantError):
        found = _choose(outputs, "", lambda tensor: dimensions in (None, tensor.ndim), "", "")
        if not found.is_nested and found.ndim > (examples == 1) and len(found) == examples:
            return found
    return None


def _chosen(
    outputs: Any, batch: Batch, metric: str, fits: Callable[[torch.Tensor], bool], wanted: str, these: str
) -> torch.Tensor:
    """What is scored; the rest may hold whatever it likes, this no NaN and no +inf."""
    chosen = _choose(outputs, metric, fits, wanted, these)
    refuse_no_answers(chosen, batch.first)
    return chosen


def _choose(outputs: Any, metric: str, fits: Callable[[torch.Tensor], bool], wanted: str, these: str) -> torch.Tensor:
    if isinstance(outputs, torch.Tensor):
        return outputs
    named = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    if isinstance(named, torch.Tensor):
        return named
    found = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point() and fits(tensor)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} {these}" if found else "no `logits`"
    raise VariantError(
        f"{metric} needs {wanted}, but the model returned a {type(outputs).__name__} with {what}; return one tensor, "
        "name it `logits`, or let a function choose: `prepare: package.module:function` below `metric`"
    )


class Prepared:
    """A scorer behind the project's function `prepare`, which is called with each batch."""

    def __init__(self, scorer: Scorer, prepare: Prepare, name: str) -> None:
        self._scorer = scorer
        self._prepare = prepare
        self._name = name

    def add(self, outputs: Any, batch: Batch) -> None:
        with raised_by(f"`prepare`, {self._name},"):
            made = self._prepare(usable(outputs, batch.first), batch.targets)
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            what = f"a {type(made).__name__}" + (f" of {len(made)}" if isinstance(made, (tuple, list)) else "")
            raise VariantError(
                f"`prepare`, {self._name}, returned {what}; it must return (predictions, targets) of the batch"
            )
        self._scorer.add(made[0], replace(batch, targets=made[1], stated=batch.examples))

    def score(self, slices: int) -> Score:
        return self._scorer.score(slices)


@contextlib.contextmanager
def raised_by(what: str, given: str = "") -> Iterator[None]:
    """What the project's code raises becomes an error that says whose it is."""
    try:
        yield
    except VariantError:
        raise  # of a part that cannot be used
    except Exception as error:
        raise VariantError(f"{what} raised {error_text(error)}{given}") from error


def pick(values: Any, indices: Sequence[int]) -> Any:
    """Some examples of a tensor or a list."""
    return values[list(indices)] if isinstance(values, torch.Tensor) else [values[index] for index in indices]


def count(values: Any) -> int | None:
    """How many examples there are in a tensor, list or tuple; None where it is something else."""
    if isinstance(values, torch.Tensor):
        return len(values) if values.ndim else None
    return len(values) if isinstance(values, (list, tuple)) else None


def shape(values: Any) -> str:
    """In words: '(64, 10) float32', or '64 str'."""
    if isinstance(values, torch.Tensor):
        return f"{tuple(values.shape)} {str(values.dtype)[6:]}"
    if isinstance(values, (list, tuple)):
        return f"{len(values)} {type(values[0]).__name__}" if values else "none"
    return f"a {type(values).__name__}"


def by_slice(batch: Batch) -> dict[int, list[int]]:
    """The examples of a batch, as positions in it, by the slice that they are in."""
    found: dict[int, list[int]] = {}
    for position, index in enumerate(batch.slices or ()):
        found.setdefault(index, []).append(position)
    return found


def number(value: Any, whose: str, way_out: str) -> float:
    """One finite number. Raises VariantError, with the way out, where it is anything else."""
    is_array = isinstance(value, torch.Tensor) or type(value).__module__ == "numpy"
    if is_array and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, Real):
        raise VariantError(f"{whose} returned {_kind(value)}, not one number; {way_out}")
    found = float(value)
    if not math.isfinite(found):
        raise VariantError(f"{whose} returned {found}, which is not a finite number")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor) or (type(value).__module__ == "numpy" and hasattr(value, "shape")):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(str, list(value)[:5]))}"
    if value is None:
        return "nothing"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
