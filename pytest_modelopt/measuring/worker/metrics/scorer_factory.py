"""From a metric as it is stated to scorers: what is imported, what it is, which direction is better, what it is called.

All that is wrong with it is told when the variant is loaded, before anything is scored.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pytest_modelopt.measuring.protocol import KnownTargets, VariantError, error_text
from pytest_modelopt.measuring.worker import source_loading
from pytest_modelopt.measuring.worker.metrics import torchmetrics as classes
from pytest_modelopt.measuring.worker.metrics import torchmetrics_contract
from pytest_modelopt.measuring.worker.metrics.agreement import Agreement, Cosine, Sqnr
from pytest_modelopt.measuring.worker.metrics.classification import Classification, misfit
from pytest_modelopt.measuring.worker.metrics.functions import PerExample, WholeSet
from pytest_modelopt.measuring.worker.metrics.perplexity import Perplexity
from pytest_modelopt.measuring.worker.metrics.perplexity import of_sums as perplexity_of_sums
from pytest_modelopt.measuring.worker.metrics.scored_outputs import Prepare, Prepared
from pytest_modelopt.measuring.worker.metrics.scorer import Scorer
from pytest_modelopt.measuring.worker.metrics.wrong_pairings import Paired
from pytest_modelopt.results.metric import PERPLEXITY, MetricSpec


@dataclass(frozen=True)
class Metric:
    """A metric in the worker."""

    name: str
    """What the record calls it: 'accuracy', 'WordErrorRate', 'package.module:function'."""
    higher_is_better: bool
    make: Callable[[Path | None, Path | None], Scorer]
    prepare: Prepare | None = None
    prepare_name: str = ""
    from_sums: Callable[[torch.Tensor, int], float] | None = None
    """The score of some examples from the sum of their summands and their number; None where there are none."""
    make_paired: Callable[[], Scorer] | None = None
    """Likewise, but wrong pairs of outputs and targets are scored, too; None for a metric without targets."""
    worst: float | None = None
    """The worst score that it can give; None where that is not known."""
    misfit: Callable[[Any, KnownTargets, int], str] | None = None
    """Why outputs of a call of so many examples cannot be scored with targets of the data, for certain, '' where they
    may be; None: nothing is known of what the project's own function takes."""

    def scorer(self, keep: Path | None = None, reference: Path | None = None, *, is_paired: bool = False) -> Scorer:
        """For one pass over the data. An unlabelled metric writes what it saw to `keep`, and compares with `reference`,
        which the original's pass has written; without the latter it compares the outputs with themselves.

        `is_paired`: the score of wrong pairs is wanted, too, as of an original.
        """
        made = self.make_paired() if is_paired and self.make_paired is not None else self.make(keep, reference)
        return made if self.prepare is None else Prepared(made, self.prepare, self.prepare_name)


def make_metric(spec: MetricSpec, loader: source_loading.Loader) -> Metric:
    """Raises VariantError where the metric cannot be had, or does not fit what is stated with it."""
    prepare = None if spec.prepare is None else loader.get(spec.prepare, "prepare")
    if prepare is not None and not callable(prepare):
        raise VariantError(f"`prepare` is a {type(prepare).__name__}, not a function (outputs, targets)")
    called = "" if prepare is None else _name_of(spec.prepare, prepare)
    if spec.is_built_in:
        assert isinstance(spec.name, str)
        if spec.name == PERPLEXITY:
            return Metric(spec.name, False, Perplexity, from_sums=perplexity_of_sums)
        built_in, summed = _built_in(spec), _mean if spec.name == "cosine" else None
        if spec.is_unlabelled:
            return Metric(spec.name, True, built_in, prepare, called, summed)
        return Metric(
            spec.name,
            True,
            built_in,
            prepare,
            called,
            summed,
            _paired(lambda: built_in(None, None), True),
            0.0,
            None if prepare is not None else partial(misfit, spec.top_k or 1, spec.name),
        )
    found = _found(spec, loader)
    if isinstance(found, type) or _is_instance(found):
        made = _instance(found, spec)
        name = _class_name(spec, made)
        sums, direction = classes.Sums(torchmetrics_contract.fresh(made)), _direction(made, name, spec)
        kind = partial(classes.ClassMetric, sums, name, spec.activation, is_prepared=prepare is not None)
        return Metric(
            name,
            direction,
            lambda keep, reference: kind(),
            prepare,
            called,
            (lambda row, examples: sums.score(row)) if sums.adds_up else None,
            _paired(kind, direction, lambda: kind(keeps_singles=False)),
            classes.worst_of(made, higher_is_better=direction),
            None if prepare is not None else partial(torchmetrics_contract.misfit, sums.metric, name),
        )
    name = _name_of(spec.name, found)
    _refuse_for_function(spec, name)
    direction = _direction(found, name, spec)
    if spec.per_example or getattr(found, "per_example", False) is True:
        each = partial(PerExample, found, name)
        return Metric(name, direction, lambda keep, reference: each(), prepare, called, _mean, _paired(each, direction))
    whole = partial(WholeSet, found, name, is_prepared=prepare is not None)
    return Metric(
        name,
        direction,
        lambda keep, reference: whole(),
        prepare,
        called,
        make_paired=lambda: whole(higher_is_better=direction),
    )


def _paired(
    make: Callable[[], Scorer], higher_is_better: bool, make_probe: Callable[[], Scorer] | None = None
) -> Callable[[], Scorer]:
    return lambda: Paired(make(), make_probe or make, higher_is_better=higher_is_better)


def _mean(sums: torch.Tensor, examples: int) -> float:
    return float(sums[0]) / examples


def _built_in(spec: MetricSpec) -> Callable[[Path | None, Path | None], Scorer]:
    if spec.top_k is not None:
        k, name = spec.top_k, str(spec.name)
        return lambda keep, reference: Classification(k, name)
    unlabelled: dict[str, Callable[[Path | None, Path | None], Scorer]] = {
        "agreement": Agreement,
        "cosine": Cosine,
        "sqnr": Sqnr,
    }
    return unlabelled[str(spec.name)]


def _found(spec: MetricSpec, loader: source_loading.Loader) -> Any:
    """What the name stands for: a class, an instance or a function."""
    if not isinstance(spec.name, str):
        return loader.get(spec.name, "metric")
    if spec.name.startswith("torchmetrics."):
        classes.library(spec.name)
        if why := classes.left_out(spec.name):
            raise VariantError(why)
    if ":" in spec.name:
        return loader.get(spec.name, "metric")
    module, _, name = spec.name.rpartition(".")
    found = loader.get(f"{module}:{name}", "metric")
    if not isinstance(found, type):
        raise VariantError(
            f"the metric `{spec.name}` is a {type(found).__name__}, not a class; for a function write `{module}:{name}`"
        )
    return found


def _instance(found: Any, spec: MetricSpec) -> Any:
    """A metric of torchmetrics, made with the stated arguments where a class was named."""
    stated = _stated_name(spec, found)
    library = classes.library(stated)
    kind = found if isinstance(found, type) else type(found)
    if not issubclass(kind, library.Metric):
        raise VariantError(
            f"the metric `{stated}` is a class, but not one of torchmetrics: derive it from `torchmetrics.Metric`, or "
            "name a function (outputs, targets) -> score"
        )
    if spec.per_example:
        raise VariantError(
            f"`per_example` is for functions, and the metric `{stated}` is a class, which is updated batch by batch; "
            "remove it"
        )
    if not isinstance(found, type):
        if spec.arguments:
            raise VariantError(f"`arguments` are for a class, and the metric `{stated}` is made already; remove them")
        return found.to("cpu")
    try:
        return found(**dict(spec.arguments))
    except ImportError as error:
        raise VariantError(f"the metric `{stated}` needs a package that is not installed: {error}") from None
    except Exception as error:
        given = ", ".join(f"{name}={_shown(value)}" for name, value in spec.arguments)
        raise VariantError(
            f"the metric `{stated}` cannot be made: {error_text(error)} (`arguments`: {given or 'none'})"
        ) from error


def _is_instance(found: Any) -> bool:
    """Whether it is a metric of torchmetrics, which need not be there for anything else."""
    library = sys.modules.get("torchmetrics")
    return library is not None and isinstance(found, library.Metric)


def _refuse_for_function(spec: MetricSpec, name: str) -> None:
    given = [key for key in ("arguments", "activation") if getattr(spec, key)]
    if given:
        raise VariantError(f"`{given[0]}` is for a class, and the metric `{name}` is a function; remove it")


def _direction(metric: Any, name: str, spec: MetricSpec) -> bool:
    """From the metric itself or as stated; both may say it, if they say the same."""
    own, stated = getattr(metric, "higher_is_better", None), spec.higher_is_better
    if isinstance(own, bool) and stated is not None and own is not stated:
        raise VariantError(
            f"`higher_is_better: {str(stated).lower()}` is stated, but the metric `{name}` itself says {own}; remove "
            "one of the two"
        )
    if isinstance(own, bool):
        return own
    if stated is not None:
        return stated
    raise VariantError(
        f"the metric `{name}` does not say whether higher is better: add `higher_is_better: true` or `false` below "
        "`metric`, or set its attribute `higher_is_better`, so that a drop is always a worsening"
    )


# --- names -----------------------------------------------------------------------------------------------------------


def _name_of(stated: Any, function: Any) -> str:
    """As stated; of a live function its module and name. The colon keeps it apart from built-in metrics."""
    if isinstance(stated, str):
        return stated
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


def _stated_name(spec: MetricSpec, found: Any) -> str:
    return spec.name if isinstance(spec.name, str) else _name_of(spec.name, found)


def _class_name(spec: MetricSpec, metric: Any) -> str:
    """'MulticlassF1Score(average=macro, num_classes=10)'; a class that is not torchmetrics' own with its module."""
    kind = type(metric)
    is_theirs = kind.__module__.split(".")[0] == "torchmetrics"
    name = kind.__name__ if is_theirs else f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(spec.name, str) and not is_theirs:
        name = spec.name
    arguments = dict(spec.arguments) or _arguments_of(metric)
    inner = ", ".join(f"{key}={_shown(value)}" for key, value in sorted(arguments.items()))
    return f"{name}({inner})" if inner else name


def _arguments_of(metric: Any) -> Mapping[str, Any]:
    """What an instance was made with, as far as its attributes tell: so that two in one test have two names."""
    known = {}
    for name, parameter in inspect.signature(type(metric).__init__).parameters.items():
        value = vars(metric).get(name, parameter.default)
        if isinstance(value, (bool, int, float, str)) and value != parameter.default:
            known[name] = value
    return known


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
