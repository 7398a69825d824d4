"""What scores the answers: a metric by name with what it needs, as a budgets file, a test or a worker states it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pytest_modelopt.results.source import Source

Activation = Literal["sigmoid", "softmax"]

TOP_K = re.compile(r"top-([1-9][0-9]{0,3})")
UNLABELLED = ("agreement", "cosine", "sqnr")
"""Built-in metrics that hold the variant against the original's answers, and need no targets."""
PERPLEXITY = "perplexity"
"""The built-in metric of models that generate: of the data's own tokens, better when it is lower."""
TOP_K_MEANING = "the share of examples whose target is among their K most probable classes, for example `top-5`"
BUILT_IN = {
    "accuracy": "the share of examples whose most probable class is their target",
    "agreement": "the share of examples for which the variant predicts the class that the original does; no targets",
    "cosine": "the mean over the examples of the cosine between the variant's outputs and the original's; no targets",
    "sqnr": "the power of the original's outputs over that of the differences, in decibels; no targets",
    PERPLEXITY: "of the data's own tokens, for models that generate; lower is better",
}
"""By name, in words; besides `top-K`. All of them but `PERPLEXITY` are better when they are higher."""
IN_UNIT_INTERVAL = ("accuracy", "agreement")
"""Built-in metrics whose scores are shares of the examples, beside `top-K`."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric, as it is stated; nothing of it is imported yet."""

    name: Source = "accuracy"
    """`accuracy`, `top-5`, `agreement`, `cosine`, `sqnr`; the dotted path of a torchmetrics class, as
    `torchmetrics.text.WordErrorRate`; or `package.module:function`. From a test also a carried live object."""
    arguments: tuple[tuple[str, Any], ...] = ()
    """Of a class, by name."""
    activation: Activation | None = None
    """Applied to the outputs before a class sees them: for metrics that take probabilities."""
    prepare: Source | None = None
    """A function (outputs, targets) -> (predictions, targets) of one batch, as the metric takes them."""
    higher_is_better: bool | None = None
    """Where the metric itself does not say."""
    per_example: bool = False
    """Of a function: it gives one value for each example of a batch, and the score is their mean."""

    @property
    def top_k(self) -> int | None:
        """1 for `accuracy`, K for `top-K`, else None."""
        if self.name == "accuracy":
            return 1
        match = TOP_K.fullmatch(self.name) if isinstance(self.name, str) else None
        return int(match[1]) if match else None

    @property
    def is_unlabelled(self) -> bool:
        return self.name in UNLABELLED

    @property
    def is_built_in(self) -> bool:
        return self.name in BUILT_IN or self.top_k is not None

    @property
    def is_of_project(self) -> bool:
        """Whether code of the project takes part in it."""
        is_library = isinstance(self.name, str) and self.name.startswith("torchmetrics.")
        return self.prepare is not None or not (self.is_built_in or is_library)

    @property
    def known_direction(self) -> bool | None:
        """Whether higher is better, as far as that is known without importing the metric."""
        return self.name != PERPLEXITY if self.is_built_in else self.higher_is_better


def in_unit_interval(metric: str | None) -> bool | None:
    """Whether its scores lie in 0..1: True for shares of the examples, None for metrics that are not ours."""
    if metric in BUILT_IN and not is_share(metric):
        return False
    return True if is_share(metric) else None


def is_share(metric: str | None) -> bool:
    """Whether this is the name of a built-in metric whose scores are shares of the examples, from 0 to 1."""
    return metric is not None and (metric in IN_UNIT_INTERVAL or TOP_K.fullmatch(metric) is not None)
