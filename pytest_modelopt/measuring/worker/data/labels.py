"""Targets that a model must be given to run at all, as Hugging Face's encoder-decoders need the labels for the decoder.

The decoder reads them shifted by one: each answer is made from the targets before its own (teacher forcing), which is
how such a model is trained and scored. An answer that sees its own target would be scored on what it was told.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import VariantError
from pytest_modelopt.measuring.worker.answers import quality
from pytest_modelopt.measuring.worker.calls.structure import tensors_in
from pytest_modelopt.measuring.worker.metrics.scorer import Targets
from pytest_modelopt.optimizing.calling import Inputs

NAME = "labels"
NOTE = (
    "the model runs with its targets only, so each call is given them as `labels`: its decoder reads those before the "
    "one that it answers (teacher forcing), and the loss that it returns is not scored"
)


def are_in(inputs: Inputs) -> bool:
    """Whether the project itself gives them among the inputs."""
    return isinstance(inputs, dict) and NAME in inputs


def are_taken_by(model: torch.nn.Module) -> bool:
    """Whether its forward has an argument of that name."""
    try:
        return NAME in inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return False


def with_targets(inputs: Inputs, targets: Targets) -> Inputs:
    """The inputs with the targets among them.

    Raises:
        VariantError: there is no place for them.
    """
    if not isinstance(inputs, dict) or not isinstance(targets, torch.Tensor):
        raise VariantError("targets can be given to a model only as a tensor, beside inputs in a dict")
    return {**inputs, NAME: targets.contiguous()}  # a slice of tokens is none, and losses view it as one row


def refuse_leak(model: torch.nn.Module, inputs: Inputs) -> None:
    """Raise a VariantError for a model whose answers change with the last target, which none of them may see."""
    assert isinstance(inputs, dict)
    others = inputs[NAME].clone()
    others[..., -1] = torch.where(others[..., -1] == 0, 1, 0)
    answers, changed = (_answers(model, each) for each in (inputs, {**inputs, NAME: others}))
    if any(not torch.equal(one, other) for one, other in zip(answers, changed, strict=True)):
        raise VariantError(
            "the model runs with its targets only, and its answers depend on the last one, too: it would be scored on "
            "what it was told; give it what it needs to run among the inputs, and leave the targets out of forward"
        )


def _answers(model: torch.nn.Module, inputs: Inputs) -> list[Any]:
    """Tensors with numbers for each example: a loss is none."""
    return [tensor for tensor in tensors_in(quality.run(model, inputs)) if tensor.ndim > 1]
